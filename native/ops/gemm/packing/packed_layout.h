// How a packed layout is written down: as a permutation of index bits.
//
// A layout cuts the padded matrix into slices of kNTile columns n by some rows k, both powers of two; slices with consecutive k follow one
// another, then the next kNTile columns. A slice holds one or more planes, one after the other, each a few bits of every
// weight: Plane<first bit, bits, k1, k2, k0, n0, ...>. The list says, from the lowest bit of an element's address in the plane upwards,
// which bit of n or k it is: the first log2(32 / bits) name the element in its 32-bit word, the others the word. Both directions
// follow from it, and that every weight has its own place.
//
// The interface of every layout, also of one that no bit permutation describes:
//   kNTile, kKTile                  n_padded and k_padded are multiples of them
//   pack(word, size, get)           that 32-bit word of the packed matrix; get(n, k) is the unsigned integer there
//   unpack(n, k, size, load)        the integer; load(word) reads a packed word
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define CUL_LAYOUT __host__ __device__ static constexpr
#else
#define CUL_LAYOUT static constexpr
#endif

namespace culebra {

struct WeightIndex {
  int64_t n, k;
};
struct PackedSize {
  int64_t n, k;  // padded
};

// A bit of k or of n.
enum AddressBit : int { k0, k1, k2, k3, k4, k5, k6, n0 = 16, n1, n2, n3, n4, n5 };

template <int kFirst, int kBits, AddressBit... kOrder>
struct Plane {
  static constexpr int kKBits = (0 + ... + (kOrder < n0)), kNBits = sizeof...(kOrder) - kKBits;
  static constexpr int kColumns = 1 << kNBits, kRows = 1 << kKBits;
  static constexpr int kPerWord = 32 / kBits, kWords = kColumns * kRows / kPerWord;

  // The element of column n, row k of a slice (their higher bits are ignored), and back.
  CUL_LAYOUT int element(int64_t n, int64_t k) {
    int address = 0, to = 0;
    ((address |= static_cast<int>((kOrder < n0 ? k >> kOrder : n >> (kOrder - n0)) & 1) << to++), ...);
    return address;
  }
  CUL_LAYOUT WeightIndex at(int element) {
    WeightIndex index{0, 0};
    ((kOrder < n0 ? index.k |= int64_t{element & 1} << kOrder : index.n |= int64_t{element & 1} << (kOrder - n0), element >>= 1), ...);
    return index;
  }

  // This plane's part of an integer, at the element's place in its word, and back.
  CUL_LAYOUT uint32_t put(uint32_t value, int element) { return (value >> kFirst & kMask) << (element % kPerWord * kBits); }
  CUL_LAYOUT uint32_t take(uint32_t word, int element) { return (word >> (element % kPerWord * kBits) & kMask) << kFirst; }

 private:
  static constexpr uint32_t kMask = (1u << kBits) - 1;
};

// kFlip: bits that are stored inverted.
template <int kKTile_, uint32_t kFlip, class First, class... Rest>
struct BitLayout {
  static constexpr int64_t kNTile = First::kColumns, kKTile = kKTile_;
  static constexpr int64_t kSliceRows = First::kRows, kSliceWords = (First::kWords + ... + Rest::kWords);
  static_assert(((Rest::kColumns == First::kColumns && Rest::kRows == First::kRows) && ...), "planes of one slice hold the same weights");
  static_assert(kKTile % kSliceRows == 0, "k is padded to whole slices");

  CUL_LAYOUT int64_t slice_word(int64_t n, int64_t k, PackedSize size) {
    return (n / kNTile * (size.k / kSliceRows) + k / kSliceRows) * kSliceWords;
  }

  template <class Get>
  CUL_LAYOUT uint32_t pack(int64_t word, PackedSize size, Get get) {
    const int64_t slice = word / kSliceWords, slices = size.k / kSliceRows;
    const WeightIndex corner{slice / slices * kNTile, slice % slices * kSliceRows};
    int in_slice = static_cast<int>(word % kSliceWords);
    uint32_t result = 0;
    const auto plane = [&](auto p) {
      if (in_slice >= 0 && in_slice < p.kWords)
        for (int i = 0; i < p.kPerWord; ++i) {
          const WeightIndex at = p.at(in_slice * p.kPerWord + i);
          result |= p.put(static_cast<uint32_t>(get(corner.n + at.n, corner.k + at.k)) ^ kFlip, i);
        }
      in_slice -= p.kWords;
    };
    plane(First());
    (plane(Rest()), ...);
    return result;
  }

  template <class Load>
  CUL_LAYOUT int unpack(int64_t n, int64_t k, PackedSize size, Load load) {
    int64_t word = slice_word(n, k, size);
    uint32_t result = 0;
    const auto plane = [&](auto p) {
      const int element = p.element(n, k);
      result |= p.take(load(word + element / p.kPerWord), element);
      word += p.kWords;
    };
    plane(First());
    (plane(Rest()), ...);
    return static_cast<int>(result ^ kFlip);
  }

  // Where the first plane has a weight: the word of the packed matrix.
  CUL_LAYOUT int64_t word(int64_t n, int64_t k, int64_t n_padded, int64_t k_padded) {
    return slice_word(n, k, {n_padded, k_padded}) + First::element(n, k) / First::kPerWord;
  }
};

}  // namespace culebra
