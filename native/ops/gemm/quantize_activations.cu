#include "device/barrier.h"
#include "device/bits.h"
#include "device/launch.h"
#include "device/vector.h"
#include "device/warp.h"
#include "ops/gemm/quantize_activations.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreadBytes = 64;  // of a row that a thread keeps in registers
constexpr int kBlockThreads = 256;

// What one 16-byte read brings.
template <class T>
using Pack = Vector<T, 16 / sizeof(T)>;
template <class T>
constexpr int kPack = 16 / sizeof(T);

// x[0 .. count) of at most one pack, the rest 0.
template <class T>
CUL_DEVICE_FN Pack<T> load_pack(const T* x, int64_t count, bool aligned) {
  if (aligned && count >= kPack<T>) return load_stream(reinterpret_cast<const Pack<T>*>(x));
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) pack[i] = i < count ? x[i] : T{};
  return pack;
}

// x / scale rounded as IEEE says: the sequence that nvcc makes of a division, with the reciprocal taken once, and without the call
// for operands beyond its range (which spills registers). Scales are 1e-12 at least, and smaller quotients are 0 in 8 bits
// whatever their last bit. A scale that is not finite gives 0, or NaN, as the division does.
struct Divisor {
  float scale, inverse;

  explicit CUL_DEVICE_FN Divisor(float s) {
    const bool finite = s - s == 0;
    scale = finite ? s : 1.0f;
    inverse = fast_reciprocal(s);
    if (finite) inverse = fmaf(fmaf(-s, inverse, 1.0f), inverse, inverse);
  }
  CUL_DEVICE_FN float operator()(float x) const {
    float quotient = x * inverse;
    quotient = fmaf(fmaf(-quotient, scale, x), inverse, quotient);
    return fmaf(fmaf(-quotient, scale, x), inverse, quotient);
  }
};

// The scale of values whose largest |x| has these bits: among bit patterns a NaN exceeds every number.
CUL_DEVICE_FN float scale_of(uint32_t amax_bits, bool f8) {
  const float amax = __uint_as_float(amax_bits);
  return quantize::activation_scale(amax - amax == 0 ? Divisor(quantize::activation_max(f8))(amax) : amax);
}

CUL_DEVICE_FN uint8_t byte_of(float quotient, bool f8) {
  if (f8) return from_float<float8_e4m3_t>(quotient).bits;
  const int nearest = __float2int_rn(quotient);  // NaN gives 0
  return static_cast<uint8_t>(nearest < -128 ? -128 : nearest > 127 ? 127 : nearest);
}

template <class T, class Divide>
CUL_DEVICE_FN void store_pack(const Pack<T>& pack, const Divide& divide, bool f8, uint8_t* q, int64_t count, bool aligned) {
  Vector<uint8_t, kPack<T>> bytes;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) bytes[i] = byte_of(divide(to_float(pack[i])), f8);
  if (aligned && count >= kPack<T>) {
    store_vector(q, bytes);
  } else {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      if (i < count) q[i] = bytes[i];
  }
}

template <class T>
CUL_DEVICE_FN uint32_t largest_bits(const Pack<T>& pack) {
  uint32_t top = 0;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) top = max(top, __float_as_uint(to_float(pack[i])) & 0x7fffffffu);
  return top;
}

// The largest value of a row's threads, in all of them.
template <int kThreads>
CUL_DEVICE_FN uint32_t row_max(uint32_t value) {
  value = __reduce_max_sync(kFullMask, value);
  if constexpr (kThreads > 32) {
    CUL_SHARED(uint32_t, of_warp, [kThreads / 32]);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = __reduce_max_sync(kFullMask, of_warp[threadIdx.x % (kThreads / 32)]);
    __syncthreads();  // the next row writes of_warp
  }
  return value;
}

template <int kThreads>
constexpr int kRowsPerBlock = kThreads < kBlockThreads ? kBlockThreads / kThreads : 1;

// Computes: q = x / scale in 8 bits, and the scales (the formulas are in quantize_activations.h).
// Shapes:   x [m, k] -> q [m, k], scales [m, 1] or [m, ceil(k / 128)]; any m, k.
// Layouts:  row-major, any row strides; 16-byte reads where every row of x is aligned.
// Tiles:    a row per warp, per 256 or per 512 threads; 64 bytes a thread in registers, so that a row of up to 32 KB is read once.
// Shared:   one word a warp.
// Order:    maxima, which have none.
// Numerics: quotients rounded as IEEE says, then once to 8 bits; maxima of bit patterns, so that NaN wins.
// Needs:    sm_80. Limit: m k (sizeof(T) + 1) bytes.
// Source:   the 16 lanes (f32: 32) that read 128 values are neighbours, so a block's maximum is a shuffle.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads* kRowsPerBlock<kThreads>, 1) quantize_rows(QuantizeActivationsParams p, bool aligned) {
  constexpr int kPacks = kThreadBytes / 16, kRows = kRowsPerBlock<kThreads>;
  constexpr int kBlockLanes = static_cast<int>(quantize::kActivationBlock) / kPack<T>;
  constexpr int64_t kStrip = int64_t{kThreads} * kPacks * kPack<T>;  // values that the threads hold at once
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kThreads; row < p.m;
       row += static_cast<int64_t>(gridDim.x) * kRows) {
    const T* const x = static_cast<const T*>(p.x) + row * p.ldx;
    uint8_t* const q = static_cast<uint8_t*>(p.q) + row * p.ldq;
    float* const scales = p.scales + row * p.lds;
    const auto column_of = [&](int64_t strip, int j) { return strip + (int64_t{j} * kThreads + thread) * kPack<T>; };
    Pack<T> packs[kPacks];
    const auto load = [&](int64_t strip) {
#pragma unroll
      for (int j = 0; j < kPacks; ++j) packs[j] = load_pack(x + column_of(strip, j), p.k - column_of(strip, j), aligned);
    };

    if (p.blocks == 1) {
      uint32_t top = 0;
      // From the last strip to the first one, which then is still there.
      for (int64_t strip = p.k > kStrip ? (p.k - 1) / kStrip * kStrip : 0; strip >= 0; strip -= kStrip) {
        load(strip);
#pragma unroll
        for (int j = 0; j < kPacks; ++j) top = max(top, largest_bits<T>(packs[j]));
      }
      const float scale = scale_of(row_max<kThreads>(top), p.f8);
      if (thread == 0) scales[0] = scale;
      const Divisor divisor(scale);
      for (int64_t strip = 0; strip < p.k; strip += kStrip) {
        if (strip > 0) load(strip);
#pragma unroll
        for (int j = 0; j < kPacks; ++j)
          if (const int64_t column = column_of(strip, j); column < p.k)
            store_pack<T>(packs[j], divisor, p.f8, q + column, p.k - column, aligned);
      }
    } else {
      for (int64_t strip = 0; strip < p.k; strip += kStrip) {
        load(strip);
#pragma unroll
        for (int j = 0; j < kPacks; ++j) {
          const int64_t column = column_of(strip, j);
          const float scale = scale_of(warp_max<kBlockLanes>(largest_bits<T>(packs[j])), p.f8);
          if (column >= p.k) continue;
          if (thread % kBlockLanes == 0) scales[column / quantize::kActivationBlock] = scale;
          store_pack<T>(packs[j], Divisor(scale), p.f8, q + column, p.k - column, aligned);
        }
      }
    }
  }
}

// Computes: q = x / scale in 8 bits, one given scale.
// Shapes:   x [m, k] -> q [m, k]; any m, k.
// Layouts:  row-major, any row strides; 16-byte reads where every row of x is aligned.
// Tiles:    blocks of 256 threads, 16 bytes a thread, several to a row; grid-stride.
// Shared:   none.
// Order:    none: one element from one.
// Numerics: IEEE division, whatever the scale is, then one rounding to 8 bits.
// Needs:    sm_80. Limit: m k (sizeof(T) + 1) bytes.
// Source:   elementwise.
template <class T>
__global__ void __launch_bounds__(kBlockThreads) quantize_given(QuantizeActivationsParams p, int64_t row_tiles, bool aligned) {
  const float scale = *p.scale;
  for (int64_t tile = blockIdx.x; tile < p.m * row_tiles; tile += gridDim.x) {
    const int64_t row = tile / row_tiles, column = (tile % row_tiles * kBlockThreads + threadIdx.x) * kPack<T>;
    if (column >= p.k) continue;
    store_pack<T>(load_pack(static_cast<const T*>(p.x) + row * p.ldx + column, p.k - column, aligned),
                  [&](float x) { return x / scale; }, p.f8, static_cast<uint8_t*>(p.q) + row * p.ldq + column, p.k - column, aligned);
  }
}

dim3 grid_of(int64_t blocks) { return dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)); }

template <class T, int kThreads>
void launch_rows(const QuantizeActivationsParams& p, bool aligned, NativeStream stream) {
  constexpr int kRows = kRowsPerBlock<kThreads>;
  launch(quantize_rows<T, kThreads>, grid_of((p.m + kRows - 1) / kRows), dim3(kThreads * kRows), 0, stream, p, aligned);
}

template <class T>
void run(const QuantizeActivationsParams& p, NativeStream stream) {
  constexpr int64_t kThreadValues = kThreadBytes / sizeof(T);
  const bool aligned = p.m == 1 || (p.ldx % kPack<T> == 0 && p.ldq % kPack<T> == 0);
  if (p.scale) {
    const int64_t row_tiles = (p.k + kBlockThreads * kPack<T> - 1) / (kBlockThreads * kPack<T>);
    if (row_tiles > 0) launch(quantize_given<T>, grid_of(p.m * row_tiles), dim3(kBlockThreads), 0, stream, p, row_tiles, aligned);
  } else if (p.k <= 32 * kThreadValues) {
    launch_rows<T, 32>(p, aligned, stream);
  } else if (p.k <= 256 * kThreadValues) {
    launch_rows<T, 256>(p, aligned, stream);
  } else {
    launch_rows<T, 512>(p, aligned, stream);
  }
}

}  // namespace

void quantize_activations(const QuantizeActivationsParams& p, NativeStream stream) {
  if (p.m == 0) return;
  if (p.dtype == DType::f32) run<float>(p, stream);
  else if (p.dtype == DType::f16) run<half_t>(p, stream);
  else run<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
