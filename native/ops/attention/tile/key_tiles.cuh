// Rows into shared memory, and results out of it: what the loops over tours share.
#pragma once
#include "device/async_copy.h"
#include "device/barrier.h"
#include "ops/attention/tile/tour.cuh"

namespace culebra::CUL_DEVICE_NS {

// A row in shared memory is padded by 16 bytes: ldmatrix meets no bank twice.
template <int kDim>
inline constexpr int row_pitch = kDim + 8;

// Eight e4m3 as T.
template <class T>
CUL_DEVICE_FN Vector<T, 8> widen(const Vector<float8_e4m3_t, 8>& from) {
  Vector<T, 8> to;
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = from_float<T>(to_float(from[i]));
  return to;
}
// Eight elements from channel c on, zeros beyond dim, of a row that lies at any address.
template <class T, class S>
CUL_DEVICE_FN Vector<T, 8> load_chunk(const S* row, int c, int dim) {
  Vector<T, 8> to;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (sizeof(S) == sizeof(T))
      to[i] = c + i < dim ? row[c + i] : T{};
    else
      to[i] = c + i < dim ? from_float<T>(to_float(row[c + i])) : T{};
  }
  return to;
}

// kRows rows of dim elements into tile [kRows][row_pitch<kDim>] by kThreads threads, zeros where row(i) is null and up to the next multiple
// of 16 channels; beyond it nothing is written. Whole rows of T travel asynchronously: cp_async_commit and wait are the caller's.
template <int kRows, int kThreads, int kDim, class T, class Row>
CUL_DEVICE_FN void fetch_rows(T* tile, int dim, bool aligned, const void* anywhere, int thread, Row row) {
  constexpr int kChunks = kDim / 8, kStep = kThreads / kChunks > 0 ? kThreads / kChunks : 1, kTurns = kThreads >= kChunks ? 1 : kChunks / kThreads;
  static_assert(kRows % kStep == 0 && (kThreads % kChunks == 0 || kChunks % kThreads == 0));
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int c = (thread % kChunks + turn * kThreads) * 8, first = thread / kChunks;
    if (c >= (dim + 15) / 16 * 16) continue;
#pragma unroll
    for (int i = 0; i < kRows / kStep; ++i) {
      T* const to = tile + (first + i * kStep) * row_pitch<kDim> + c;
      const T* const from = static_cast<const T*>(row(first + i * kStep));
      if (aligned) {
        const bool inside = from && c < dim;
        cp_async_l2(shared_address(to), inside ? static_cast<const void*>(from + c) : anywhere, inside);
      } else {
        store_vector(to, from ? load_chunk<T>(from, c, dim) : Vector<T, 8>{});
      }
    }
  }
}

// The same of e4m3 rows, converted on their way, or of whatever chunk(i, c) gives.
template <int kRows, int kThreads, int kDim, class T, class Chunk>
CUL_DEVICE_FN void make_rows(T* tile, int dim, int thread, Chunk chunk) {
  constexpr int kChunks = kDim / 8;
#pragma unroll 8
  for (int i = thread; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, c = i % kChunks * 8;
    if (c < (dim + 15) / 16 * 16) store_vector(tile + row * row_pitch<kDim> + c, c < dim ? chunk(row, c) : Eight<T>{});
  }
}
template <class T>
CUL_DEVICE_FN Eight<T> f8_chunk(const void* row, int c, int dim, bool aligned) {
  if (!row) return {};
  const auto* const from = static_cast<const float8_e4m3_t*>(row);
  return aligned ? widen<T>(load_vector<8>(from + c)) : load_chunk<T>(from, c, dim);
}

// Keys, or values, [first, first + kKeys) of the tour: places[i] is key first + i's.
enum class Side { keys, values };
template <Side kSide, int kKeys, int kThreads, int kDim, class T, class Tour>
CUL_DEVICE_FN void fetch_keys(T* tile, const Problem& p, const Tour& tour, const KeyPlace* places, int first, int thread) {
  const int dim = kSide == Side::keys ? p.dim : p.value_dim;
  const auto row = [&](int i) { return kSide == Side::keys ? places[i].k : places[i].v; };
  if constexpr (requires { tour.template k_chunk<T>(places[0], 0, 0); }) {
    make_rows<kKeys, kThreads, kDim>(tile, dim, thread, [&](int i, int c) {
      const KeyPlace place = places[i];
      if constexpr (kSide == Side::keys)
        return tour.template k_chunk<T>(place, first + i, c);
      else
        return tour.template v_chunk<T>(place, first + i, c);
    });
  } else {
    constexpr bool kMayBeF8 = !requires { Tour::kPlainKeys; };
    if (kMayBeF8 && p.f8)
      make_rows<kKeys, kThreads, kDim>(tile, dim, thread, [&](int i, int c) { return f8_chunk<T>(row(i), c, dim, p.aligned); });
    else
      fetch_rows<kKeys, kThreads, kDim>(tile, dim, p.aligned, p.anywhere, thread, row);
  }
}

// Where key n lies, for keys of a span; others lie nowhere.
template <class Tour>
CUL_DEVICE_FN KeyPlace place_of(const Tour& tour, KeySpan span, int n) {
  return n >= span.begin && n < span.end ? tour.place(n) : KeyPlace{nullptr, nullptr};
}

// A finished row of kDim f32 values in shared memory, to o in T; thread i of kThreads.
template <class T, int kThreads>
CUL_DEVICE_FN void store_row(T* o, const float* values, int dim, bool aligned, int thread) {
  if (aligned) {
    constexpr int kSize = 16 / static_cast<int>(sizeof(T));
    for (int c = thread * kSize; c < dim; c += kThreads * kSize) {
      Vector<T, kSize> out;
#pragma unroll
      for (int i = 0; i < kSize; ++i) out[i] = from_float<T>(values[c + i]);
      store_vector(o + c, out);
    }
    return;
  }
  for (int c = thread; c < dim; c += kThreads) o[c] = from_float<T>(values[c]);
}

}  // namespace culebra::CUL_DEVICE_NS
