// One probe per emulated instruction, with inputs for which the hardware's answer is exact: integers, bit patterns, and sums of
// small integers in floating point, equal in any order of addition. README.md says how the hashes are compared.
#include <utility>

#include "device/async_copy.h"
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/bits.h"
#include "device/mma.h"
#include "device/mma_sparse.h"
#include "device/numeric.h"
#include "device/vector.h"
#include "device/warp.h"
#include "inputs.h"
#include "probes_sm90.h"
#include "runner.h"

namespace culebra::CUL_DEVICE_NS::fidelity {

// ---- matrices

template <class T>
CUL_DEVICE_FN void probe_mma(uint32_t* y, int lane) {
  uint32_t a[4], b[2];
  float d[4];
  for (int i = 0; i < 4; ++i) a[i] = pack2<T>(small_integer(lane * 32 + i), small_integer(lane * 32 + 4 + i));
  for (int i = 0; i < 2; ++i) b[i] = pack2<T>(small_integer(lane * 32 + 8 + i), small_integer(lane * 32 + 10 + i));
  for (int i = 0; i < 4; ++i) d[i] = small_integer(lane * 32 + 16 + i) * 16;
  mma_m16n8k16<T>(d, a, b[0], b[1]);
  for (int i = 0; i < 4; ++i) y[i] = static_cast<uint32_t>(static_cast<int>(d[i]));
}
struct MmaHalf : Probe<32, 4> {
  static constexpr const char* kName = "mma.m16n8k16.f16";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) { probe_mma<half_t>(y, lane); }
};
struct MmaBfloat16 : Probe<32, 4> {
  static constexpr const char* kName = "mma.m16n8k16.bf16";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) { probe_mma<bfloat16_t>(y, lane); }
};
struct MmaInt8 : Probe<32, 4> {
  static constexpr const char* kName = "mma.m16n8k32.s8";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    uint32_t a[4];
    int d[4];
    for (int i = 0; i < 4; ++i) a[i] = random_word(lane * 16 + i);
    for (int i = 0; i < 4; ++i) d[i] = static_cast<int>(random_word(lane * 16 + 8 + i));  // the sum may wrap
    mma_m16n8k32_s8(d, a, random_word(lane * 16 + 4), random_word(lane * 16 + 5));
    for (int i = 0; i < 4; ++i) y[i] = static_cast<uint32_t>(d[i]);
  }
};
struct MmaFloat8 : Probe<32, 4, 89> {
  static constexpr const char* kName = "mma.m16n8k32.e4m3";
  template <class = void>  // instantiated only where the device has it
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
#if CUL_EMULATED || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
    const auto four = [&](int k) {
      uint32_t bytes = 0;
      for (int i = 0; i < 4; ++i)
        bytes |= static_cast<uint32_t>(from_float<float8_e4m3_t>(small_integer(lane * 64 + k * 4 + i)).bits) << (8 * i);
      return bytes;
    };
    uint32_t a[4];
    float d[4];
    for (int i = 0; i < 4; ++i) a[i] = four(i);
    for (int i = 0; i < 4; ++i) d[i] = small_integer(lane * 64 + 40 + i);
    mma_m16n8k32_e4m3(d, a, four(4), four(5));
    for (int i = 0; i < 4; ++i) y[i] = static_cast<uint32_t>(static_cast<int>(d[i]));
#endif
  }
};

// The positions of two of four.
template <class T, int kSelector>
CUL_DEVICE_FN void probe_sparse_mma(uint32_t* y, int lane) {
  constexpr uint32_t kPairs[6] = {0x4, 0x8, 0xc, 0x9, 0xd, 0xe};
  uint32_t a[4], b[4], metadata = 0;
  float d[4];
  for (int i = 0; i < 4; ++i) a[i] = pack2<T>(small_integer(lane * 64 + i), small_integer(lane * 64 + 4 + i));
  for (int i = 0; i < 4; ++i) b[i] = pack2<T>(small_integer(lane * 64 + 8 + i), small_integer(lane * 64 + 12 + i));
  for (int i = 0; i < 4; ++i) d[i] = small_integer(lane * 64 + 16 + i) * 16;
  for (int i = 0; i < 8; ++i) metadata |= kPairs[random_word(lane * 64 + 20 + i) % 6] << (4 * i);
  mma_sparse_m16n8k32<T, kSelector>(d, a, b, metadata);
  for (int i = 0; i < 4; ++i) y[i] = static_cast<uint32_t>(static_cast<int>(d[i]));
}
struct SparseMmaHalf : Probe<32, 8> {
  static constexpr const char* kName = "mma.sp.m16n8k32.f16";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) { probe_sparse_mma<half_t, 0>(y, lane), probe_sparse_mma<half_t, 1>(y + 4, lane); }
};
struct SparseMmaBfloat16 : Probe<32, 8> {
  static constexpr const char* kName = "mma.sp.m16n8k32.bf16";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) { probe_sparse_mma<bfloat16_t, 0>(y, lane), probe_sparse_mma<bfloat16_t, 1>(y + 4, lane); }
};

CUL_DEVICE_FN uint32_t random_row(const uint32_t* rows, int lane) {
  return shared_address(rows + (random_word(lane + 5) % 64) * 4);
}
CUL_DEVICE_FN void fill_rows(uint32_t* rows, int lane) {
  for (int i = lane; i < 256; i += 32) rows[i] = random_word(i);
  __syncwarp();
}
struct LdmatrixX1 : Probe<32, 2> {
  static constexpr const char* kName = "ldmatrix.x1";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    CUL_SHARED(uint32_t, rows, [256]);
    fill_rows(rows, lane);
    ldmatrix_x1(y[0], random_row(rows, lane));
    ldmatrix_x1_trans(y[1], random_row(rows, lane));
  }
};
struct LdmatrixX2 : Probe<32, 4> {
  static constexpr const char* kName = "ldmatrix.x2";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    CUL_SHARED(uint32_t, rows, [256]);
    fill_rows(rows, lane);
    uint32_t r[2], t[2];
    ldmatrix_x2(r, random_row(rows, lane));
    ldmatrix_x2_trans(t, random_row(rows, lane));
    for (int i = 0; i < 2; ++i) y[i] = r[i], y[2 + i] = t[i];
  }
};
struct LdmatrixX4 : Probe<32, 8> {
  static constexpr const char* kName = "ldmatrix.x4";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    CUL_SHARED(uint32_t, rows, [256]);
    fill_rows(rows, lane);
    uint32_t r[4], t[4];
    ldmatrix_x4(r, random_row(rows, lane));
    ldmatrix_x4_trans(t, random_row(rows, lane));
    for (int i = 0; i < 4; ++i) y[i] = r[i], y[4 + i] = t[i];
  }
};
struct Movmatrix : Probe<32, 1> {
  static constexpr const char* kName = "movmatrix.trans";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) { y[0] = movmatrix_trans(random_word(lane)); }
};
struct StmatrixX4 : Probe<32, 8, 90> {
  static constexpr const char* kName = "stmatrix.x4";
  template <class = void>
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
#if CUL_EMULATED || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    CUL_SHARED(uint32_t, rows, [2][128]);
    uint32_t r[4];
    for (int i = 0; i < 4; ++i) r[i] = random_word(lane * 4 + i);
    stmatrix_x4(shared_address(rows[0] + (lane * 5 + 3) % 32 * 4), r);
    stmatrix_x4_trans(shared_address(rows[1] + (lane * 7 + 1) % 32 * 4), r);
    __syncwarp();
    for (int i = 0; i < 4; ++i) y[i] = rows[0][lane * 4 + i], y[4 + i] = rows[1][lane * 4 + i];
#endif
  }
};

// ---- copies

struct CpAsync : Probe<32, 8> {
  static constexpr const char* kName = "cp.async";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    CUL_SHARED(uint32_t, shared, [128]);
    const uint32_t* source = y + 4;  // written before the launch, as a copy's source must be
    for (int kind = 0; kind < 5; ++kind) {
      const bool taken = random_word(lane * 8 + kind) % 3 != 0;
      const uint32_t to = shared_address(shared + lane * 4);
      for (int i = 0; i < 4; ++i) shared[lane * 4 + i] = 0xdeadbeefu;
      if (kind == 0) cp_async<4>(to, source, taken);
      if (kind == 1) cp_async<8>(to, source, taken);
      if (kind == 2) cp_async<16>(to, source, taken);
      if (kind == 3) cp_async_l2(to, source, taken);
      if (kind == 4) cp_async_stream(to, source, taken);
      cp_async_commit();
      cp_async_wait<0>();
      __syncwarp();
      for (int i = 0; i < 4; ++i) y[i] = fold(y[i], shared[(31 - lane) * 4 + i]);
      __syncwarp();
    }
  }
};
struct VectorAccess : Probe<32, 8> {
  static constexpr const char* kName = "vector";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    for (int i = 0; i < 4; ++i) y[i] = random_word(lane * 4 + i);
    const Vector<uint16_t, 8> v = load_vector<8>(reinterpret_cast<const uint16_t*>(y));
    Vector<uint16_t, 8> reversed;
    for (int i = 0; i < 8; ++i) reversed[i] = v[7 - i];
    store_vector(reinterpret_cast<uint16_t*>(y + 4), reversed);
  }
};

// ---- warp

struct Shuffles : Probe<32, 4> {
  static constexpr const char* kName = "shfl";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    const uint32_t value = random_word(lane);
    for (int width = 1; width <= 32; width *= 2)
      for (int amount = 0; amount < 32; amount += 3) {
        y[0] = fold(y[0], __shfl_sync(kFullMask, value, lane * 7 + amount, width));
        y[1] = fold(y[1], __shfl_up_sync(kFullMask, value, amount, width));
        y[2] = fold(y[2], __shfl_down_sync(kFullMask, value, amount, width));
        y[3] = fold(y[3], __shfl_xor_sync(kFullMask, value, amount, width));
      }
  }
};
struct Votes : Probe<32, 6> {
  static constexpr const char* kName = "vote";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    const uint32_t value = random_word(lane);
    int all_equal = 0;
    y[0] = __ballot_sync(kFullMask, value & 1);
    y[1] = static_cast<uint32_t>(__any_sync(kFullMask, value % 64 == 0) * 2 + __all_sync(kFullMask, value != 1));
    y[2] = __match_any_sync(kFullMask, value & 3);
    y[3] = __match_all_sync(kFullMask, value & 3, &all_equal) + static_cast<uint32_t>(all_equal);
    y[4] = __match_all_sync(kFullMask, 5u, &all_equal) + static_cast<uint32_t>(all_equal);
    if (lane % 3 == 0) y[5] = __ballot_sync(0x49249249u, value & 2);
  }
};
struct Reductions : Probe<32, 8> {
  static constexpr const char* kName = "redux";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    const uint32_t value = random_word(lane);
    y[0] = __reduce_add_sync(kFullMask, value);
    y[1] = __reduce_min_sync(kFullMask, value);
    y[2] = __reduce_max_sync(kFullMask, value);
    y[3] = static_cast<uint32_t>(__reduce_min_sync(kFullMask, static_cast<int>(value)));
    y[4] = static_cast<uint32_t>(__reduce_max_sync(kFullMask, static_cast<int>(value)));
    y[5] = __reduce_and_sync(kFullMask, value | 0xffu);
    y[6] = __reduce_or_sync(kFullMask, value & 0xffff0001u);
    y[7] = __reduce_xor_sync(kFullMask, value);
  }
};
struct WarpHelpers : Probe<64, 4> {
  static constexpr const char* kName = "warp_helpers";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) {
    const float value = small_integer(thread);
    y[0] = __float_as_uint(warp_sum(value));
    y[1] = __float_as_uint(warp_max<8>(value));
    y[2] = __float_as_uint(warp_min<4>(value));
    y[3] = __float_as_uint(warp_inclusive_sum(value));
  }
};
struct Barriers : Probe<128, 4> {
  static constexpr const char* kName = "barrier";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) {
    CUL_SHARED(uint32_t, shared, [128]);
    shared[thread] = random_word(thread);
    y[0] = static_cast<uint32_t>(__syncthreads_count(thread % 3 == 0));
    y[1] = shared[127 - thread];
    y[2] = static_cast<uint32_t>(__syncthreads_or(thread == 77) * 2 + __syncthreads_and(thread != 77));
    shared[thread] = random_word(thread + 500);
    named_barrier_sync(1 + thread / 64, 64);
    y[3] = shared[thread ^ 63];
  }
};
struct Atomics : Probe<128, 4> {
  static constexpr const char* kName = "atomic";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) {
    CUL_SHARED(unsigned, integers, [8]);
    CUL_SHARED(float, sum);
    if (thread < 8) integers[thread] = thread == 2 || thread == 4 ? 0xffffffffu : 0;
    if (thread == 0) sum = 0;
    __syncthreads();
    const uint32_t value = random_word(thread);
    atomicAdd(&integers[0], value);
    atomicMax(&integers[1], value);
    atomicMin(&integers[2], value);
    atomicMax(reinterpret_cast<int*>(&integers[3]), static_cast<int>(value));
    atomicAnd(&integers[4], value | 0xfffu);
    atomicOr(&integers[5], value & 0xff00ffu);
    atomicXor(&integers[6], value);
    atomicCAS(&integers[7], 0u, 42u);
    atomicAdd(&sum, small_integer(thread));
    __syncthreads();
    if (thread < 8) y[0] = integers[thread];
    if (thread == 0) y[1] = __float_as_uint(sum);
  }
};

// ---- bits and integers

template <size_t... kTables>
CUL_DEVICE_FN uint32_t all_tables(uint32_t a, uint32_t b, uint32_t c, std::index_sequence<kTables...>) {
  uint32_t hash = 0;
  ((hash = fold(hash, lop3<static_cast<int>(kTables)>(a, b, c))), ...);
  return hash;
}
struct Lop3 : Probe<32, 1> {
  static constexpr const char* kName = "lop3";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    y[0] =
        all_tables(random_word(lane), random_word(lane + 40), random_word(lane + 80), std::make_index_sequence<256>());
  }
};
struct Prmt : Probe<32, 2> {
  static constexpr const char* kName = "prmt";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    for (int i = 0; i < 256; ++i) {
      const uint32_t a = random_word(lane + i), b = random_word(lane + i + 300),
                     selector = random_word(lane * 256 + i) & 0xffffu;
      y[0] = fold(y[0], prmt(a, b, selector));
      y[1] = fold(y[1], __byte_perm(a, b, selector));
    }
  }
};
struct Integers : Probe<32, 10> {
  static constexpr const char* kName = "integer";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    for (int i = 0; i < 40; ++i) {
      const uint32_t a = i < 2 ? 0u - static_cast<uint32_t>(i) : random_word(lane * 64 + i) >> (i % 32),
                     b = random_word(lane * 64 + i + 4000);
      y[0] = fold(y[0], static_cast<uint32_t>(__popc(a)));
      y[1] = fold(y[1], static_cast<uint32_t>(__clz(static_cast<int>(a))));
      y[2] = fold(y[2], static_cast<uint32_t>(__ffs(static_cast<int>(a))));
      y[3] = fold(y[3], __brev(a));
      y[4] = fold(y[4], __funnelshift_l(a, b, b));
      y[5] = fold(y[5], __funnelshift_r(a, b, a));
      y[6] = fold(y[6], static_cast<uint32_t>(__mulhi(static_cast<int>(a), static_cast<int>(b))));
      y[7] = fold(y[7], __umulhi(a, b));
      y[8] = fold(y[8], static_cast<uint32_t>(__dp4a(static_cast<int>(a), static_cast<int>(b), 7)));
      y[9] = fold(y[9], static_cast<uint32_t>(__clzll(static_cast<long long>(a) << 20)));
    }
  }
};

// ---- conversions and packed arithmetic

// Floats on and around what 8- and 16-bit types can hold, with the special values among them.
CUL_DEVICE_FN float float_near(uint32_t i) {
  const uint32_t word = random_word(i);
  switch (word % 8) {
    case 0: return __uint_as_float(random_word(i + 1));                                // any bit pattern
    case 1: return __uint_as_float((random_word(i + 1) & 0x807ff000u) | 0x38000000u);  // around f16's smallest
    case 2: return __uint_as_float((random_word(i + 1) & 0x87fff000u) | 0x3c000000u);  // around e4m3's subnormals
    case 3: return __uint_as_float((random_word(i + 1) & 0x80ffe000u) | 0x43000000u);  // e4m3's largest
    case 4: return __uint_as_float((random_word(i + 1) & 0x807fffffu) | 0x47000000u);  // f16's largest
    case 5: return __uint_as_float(random_word(i + 1) & 0x807fffffu);                  // subnormal floats
    case 6: return __uint_as_float((random_word(i + 1) & 0xffff0000u) | 0x8000u);      // ties of bf16
    default: return __uint_as_float((random_word(i + 1) & 0xffffe000u) | 0x1000u);     // ties of f16
  }
}
struct EncodeFloats : Probe<256, 4> {
  static constexpr const char* kName = "cvt.encode";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) {
    for (int i = 0; i < 64; ++i) {
      const float value = float_near(thread * 128 + 2 * i);
      y[0] = fold(y[0], from_float<half_t>(value).bits);
      y[1] = fold(y[1], from_float<bfloat16_t>(value).bits);
      y[2] = fold(y[2], from_float<float8_e4m3_t>(value).bits);
      y[3] = fold(y[3], pack2<half_t>(value, -value) ^ pack2<bfloat16_t>(-value, value));
    }
  }
};
struct DecodeFloats : Probe<256, 3> {
  static constexpr const char* kName = "cvt.decode";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) {
    for (int i = 0; i < 256; ++i) {
      const auto bits = static_cast<uint16_t>(thread * 256 + i);
      y[0] = fold(y[0], nan_as_one(to_float(half_t{bits})));
      y[1] = fold(y[1], nan_as_one(to_float(bfloat16_t{bits})));
    }
    y[2] = nan_as_one(to_float(float8_e4m3_t{static_cast<uint8_t>(thread)}));
  }
};
struct ConvertIntegers : Probe<32, 6> {
  static constexpr const char* kName = "cvt.integer";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    for (int i = 0; i < 64; ++i) {
      const float value = i == 0  ? __uint_as_float(0x7fc00000u)
                          : i % 2 ? float_near(lane * 128 + 2 * i)
                                  : small_integer(lane * 64 + i) + 0.5f;
      y[0] = fold(y[0], static_cast<uint32_t>(__float2int_rn(value)));
      y[1] = fold(y[1], static_cast<uint32_t>(__float2int_rz(value)));
      y[2] = fold(y[2], static_cast<uint32_t>(__float2int_rd(value)));
      y[3] = fold(y[3], static_cast<uint32_t>(__float2int_ru(value)));
      y[4] = fold(y[4], __float2uint_rn(value));
      y[5] = fold(y[5], __float_as_uint(__int2float_rn(static_cast<int>(random_word(lane * 64 + i)))));
    }
  }
};
struct MinMax : Probe<32, 3> {
  static constexpr const char* kName = "min_max";
  static CUL_DEVICE_FN void run(uint32_t* y, int lane) {
    for (int i = 0; i < 64; ++i) {
      const float a = i % 5 ? small_integer(lane * 64 + i) : __uint_as_float(0x7fc00000u),
                  b = i % 7 ? small_integer(lane * 64 + i + 5000) : 1.5f;
      y[0] = fold(y[0], nan_as_one(min(a, b)));
      y[1] = fold(y[1], nan_as_one(max(b, a)));
      y[2] = fold(y[2], __float_as_uint(__saturatef(a * 0.25f)));
    }
  }
};
template <class T>
CUL_DEVICE_FN void probe_packed(uint32_t* y, int thread) {
  for (int i = 0; i < 64; ++i) {
    const uint32_t a = random_word(thread * 256 + i), b = random_word(thread * 256 + i + 64),
                   c = random_word(thread * 256 + i + 128);
    y[0] = fold(y[0], hfma2<T>(a, b, c));
    y[1] = fold(y[1], hmul2<T>(a, b));
    y[2] = fold(y[2], hadd2<T>(a, b));
    y[3] = fold(y[3], hsub2<T>(a, b));
    // Near ones, where sums cancel and products tie.
    const uint32_t near = numeric::is_half<T> ? 0x38003800u : 0x3f003f00u,
                   mask = numeric::is_half<T> ? 0x87ff87ffu : 0x80ff80ffu;
    y[4] = fold(y[4], hfma2<T>((a & mask) | near, (b & mask) | near, (c & mask) | near));
  }
}
struct PackedHalf : Probe<256, 5> {
  static constexpr const char* kName = "fma.f16x2";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) { probe_packed<half_t>(y, thread); }
};
struct PackedBfloat16 : Probe<256, 5> {
  static constexpr const char* kName = "fma.bf16x2";
  static CUL_DEVICE_FN void run(uint32_t* y, int thread) { probe_packed<bfloat16_t>(y, thread); }
};

}  // namespace culebra::CUL_DEVICE_NS::fidelity

int main(int argc, char** argv) {
  using namespace culebra::CUL_DEVICE_NS::fidelity;
  return main_of<MmaHalf, MmaBfloat16, MmaInt8, MmaFloat8, SparseMmaHalf, SparseMmaBfloat16, LdmatrixX1, LdmatrixX2, LdmatrixX4, Movmatrix, StmatrixX4, CpAsync,
                 VectorAccess, Shuffles, Votes, Reductions, WarpHelpers, Barriers, Atomics, Lop3, Prmt, Integers,
                 EncodeFloats, DecodeFloats, ConvertIntegers, MinMax, PackedHalf, PackedBfloat16, WgmmaHalf,
                 WgmmaBfloat16, WgmmaFloat8, WgmmaInt8, WgmmaTransposedHalf, WgmmaTransposedBfloat16, Mbarriers, BulkCopies, TensorCopiesPlain, TensorCopiesSwizzled,
                 TensorCopiesBytes, Clusters>(argc, argv);
}
