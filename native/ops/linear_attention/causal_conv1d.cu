#include "ops/linear_attention/causal_conv1d.h"
#include "device/validate.h"
#include "device/vector.h"
#include "ops/glue/tiles.cuh"
#include "ops/linear_attention/sequences.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using glue::for_tiles;
using glue::kTileThreads;
using Params = CausalConv1dParams;

// Inputs before a token that its output may use.
constexpr int kMaxPast = static_cast<int>(Params::kMaxWidth) - 1;
// Sequences up to this length are walked by one thread a pack, state and all, in one launch.
constexpr int64_t kWholeTokens = 16;

// Channels [channel, channel + count) of the tensors: one access where the rows are aligned. Of halves four: eight would be 16 bytes, but
// their weights and past inputs 180 registers, which left room for 256 threads a multiprocessor.
template <class T>
struct Lane {
  static constexpr int kSize = 4;
  static constexpr int kAhead = 16 / static_cast<int>(sizeof(T));  // loads under way at once
  using Bits = Vector<T, kSize>;

  const Params& p;
  int64_t channel;
  int count;
  bool aligned;

  CUL_DEVICE_FN Bits load(const T* source) const {
    if (aligned && count == kSize) return load_vector<kSize>(source);
    Bits bits;
#pragma unroll
    for (int i = 0; i < kSize; ++i) bits[i] = i < count ? source[i] : from_float<T>(0.0f);
    return bits;
  }
  CUL_DEVICE_FN Bits input(const SequenceSpan& seq, int64_t t) const {
    return load(static_cast<const T*>(p.x.data) + seq.batch * p.x.batch + (seq.begin + t) * p.x.token + channel);
  }
  // Input `age` tokens before the sequence's first one, 1 the youngest.
  CUL_DEVICE_FN Bits old_input(const SequenceSpan& seq, int age) const {
    const T* state = static_cast<const T*>(p.state.data);
    Bits bits;
#pragma unroll
    for (int i = 0; i < kSize; ++i)
      bits[i] = state && i < count
                    ? state[seq.read_row * p.state.row + (channel + i) * p.state.channel + p.width - 1 - age]
                    : from_float<T>(0.0f);
    return bits;
  }
  CUL_DEVICE_FN void store(const SequenceSpan& seq, int64_t t, const float (&y)[kSize]) const {
    T* target = static_cast<T*>(p.y.data) + seq.batch * p.y.batch + (seq.begin + t) * p.y.token + channel;
    Bits bits;
#pragma unroll
    for (int i = 0; i < kSize; ++i) bits[i] = from_float<T>(y[i]);
    if (aligned && count == kSize) {
      store_vector(target, bits);
    } else {
#pragma unroll
      for (int i = 0; i < kSize; ++i)
        if (i < count) target[i] = bits[i];
    }
  }
};

template <class T>
CUL_DEVICE_FN float activate(const Params& p, float x) {
  return p.silu ? __fdividef(x, 1.0f + __expf(-x)) : x;
}

// Tokens [begin, end) of one sequence on one pack of channels.
template <class T>
CUL_DEVICE_FN void convolve(const Lane<T>& lane, const SequenceSpan& seq, int64_t begin, int64_t end) {
  constexpr int kSize = Lane<T>::kSize, kAhead = Lane<T>::kAhead;
  using Bits = typename Lane<T>::Bits;
  const Params& p = lane.p;
  if (seq.skipped) {
    const float zero[kSize] = {};
    for (int64_t t = begin; t < end; ++t) lane.store(seq, t, zero);
    return;
  }
  const int past = static_cast<int>(p.width) - 1;
  float w[kMaxPast + 1][kSize], bias[kSize], window[kMaxPast][kSize];  // by age: the token's own input first
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    const bool inside = i < lane.count;
    const T* weights = static_cast<const T*>(p.w) + (lane.channel + i) * p.w_stride;
#pragma unroll
    for (int age = 0; age <= kMaxPast; ++age) w[age][i] = inside && age <= past ? to_float(weights[past - age]) : 0.0f;
    bias[i] = inside && p.bias ? to_float(static_cast<const T*>(p.bias)[lane.channel + i]) : 0.0f;
  }
#pragma unroll
  for (int age = 1; age <= kMaxPast; ++age) {
    if (age > past) break;
    const int64_t t = begin - age;
    const Bits bits = t >= 0 ? lane.input(seq, t) : lane.old_input(seq, static_cast<int>(-t));
#pragma unroll
    for (int i = 0; i < kSize; ++i) window[age - 1][i] = to_float(bits[i]);
  }
  for (int64_t first = begin; first < end; first += kAhead) {
    Bits ahead[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a)
      if (first + a < end) ahead[a] = lane.input(seq, first + a);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (first + a >= end) break;
      float y[kSize];
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const float x = to_float(ahead[a][i]);
        float sum = bias[i];
        // The oldest first. A tap that the kernel is too narrow for has no input: 0 times infinity would count.
        if (past >= 3) sum = fmaf(w[3][i], window[2][i], sum);
        if (past >= 2) sum = fmaf(w[2][i], window[1][i], sum);
        sum = fmaf(w[1][i], window[0][i], sum);
        y[i] = activate<T>(p, fmaf(w[0][i], x, sum));
        if (past >= 3) window[2][i] = window[1][i];
        if (past >= 2) window[1][i] = window[0][i];
        window[0][i] = x;
      }
      lane.store(seq, first + a, y);
    }
  }
}

// The sequence's last width - 1 inputs, bit for bit. All are read before one is written: final may be state.
template <class T>
CUL_DEVICE_FN void store_state(const Lane<T>& lane, const SequenceSpan& seq) {
  const Params& p = lane.p;
  if (!p.final.data || seq.skipped) return;
  const int past = static_cast<int>(p.width) - 1;
  typename Lane<T>::Bits last[kMaxPast];
#pragma unroll
  for (int age = 1; age <= kMaxPast; ++age) {
    if (age > past) break;
    const int64_t t = seq.length - age;
    last[age - 1] = t >= 0 ? lane.input(seq, t) : lane.old_input(seq, static_cast<int>(-t));
  }
  T* target = static_cast<T*>(p.final.data) + seq.write_row * p.final.row + lane.channel * p.final.channel;
#pragma unroll
  for (int i = 0; i < Lane<T>::kSize; ++i)
#pragma unroll
    for (int age = 1; age <= kMaxPast; ++age)
      if (i < lane.count && age <= past) target[i * p.final.channel + past - age] = last[age - 1][i];
}

template <class T>
CUL_DEVICE_FN Lane<T> lane_of(const Params& p, int64_t unit, bool aligned) {
  const int64_t channel = unit * Lane<T>::kSize, left = p.channels - channel;
  return {p, channel, left < Lane<T>::kSize ? static_cast<int>(left) : Lane<T>::kSize, aligned};
}

// Computes: y_t = act(bias + sum_j w_j x_(t-W+1+j)) and the last W-1 inputs, a whole sequence a thread
// Shapes:   x, y [B,T,C]; w [C,W], W 2..4; bias [C]; states [N,C,W-1]
// Layouts:  inner stride 1, f32, f16 or bf16; accesses of four elements where tokens are aligned
// Tiles:    256 threads; a thread has one pack of channels of one sequence
// Shared:   none
// Order:    taps oldest first, one FMA chain from the bias
// Numerics: f32, rounded once; states are copied bit for bit
// Needs:    sm_80. For short sequences: decoding is one launch. Limit: x, y and the states once
// Source:   Dao, causal-conv1d (the operator)
template <class T>
__global__ void __launch_bounds__(kTileThreads) conv_sequences_kernel(Params p, int64_t units, bool aligned) {
  for_tiles(p.sequences.count, units, [&](int64_t n, int64_t unit) {
    const SequenceSpan seq = sequence_at(p.sequences, n);
    const Lane<T> lane = lane_of<T>(p, unit, aligned);
    convolve(lane, seq, 0, seq.length);
    store_state(lane, seq);
  });
}

// Computes: as above, `run` tokens a thread; states are another kernel's
// Shapes:   as above
// Layouts:  as above
// Tiles:    256 threads; a thread has one pack of channels of `run` tokens of one row of the batch, all sequences in them
// Shared:   none
// Order:    as above: the same bits
// Numerics: as above
// Needs:    sm_80. Limit: x and y once, and (W-1) / run of x once more from L2
// Source:   as above
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2) conv_runs_kernel(Params p, int64_t batch, int64_t run, int64_t units, bool aligned) {
  const int64_t tokens = p.sequences.tokens, runs = (tokens + run - 1) / run;
  for_tiles(batch * runs, units, [&](int64_t index, int64_t unit) {
    const Lane<T> lane = lane_of<T>(p, unit, aligned);
    const int64_t row = divide(index, runs), begin = (index - row * runs) * run;
    const int64_t end = begin + run < tokens ? begin + run : tokens;
    if (!p.sequences.cu_seqlens) return convolve(lane, sequence_at(p.sequences, row), begin, end);
    for (int64_t n = sequence_of_token(p.sequences, begin); n < p.sequences.count; ++n) {
      const SequenceSpan seq = sequence_at(p.sequences, n);
      if (seq.begin >= end) break;
      const int64_t from = begin > seq.begin ? begin - seq.begin : 0;
      const int64_t to = end - seq.begin < seq.length ? end - seq.begin : seq.length;
      if (from < to) convolve(lane, seq, from, to);
    }
  });
}

// Computes: the last W-1 inputs of each sequence
// Shapes:   as above
// Layouts:  as above
// Tiles:    256 threads; a thread has one pack of channels of one sequence
// Shared:   none
// Order:    none: a copy
// Numerics: exact
// Needs:    sm_80; after conv_runs_kernel, which reads the states that this one may overwrite
// Source:   as above
template <class T>
__global__ void __launch_bounds__(kTileThreads) conv_states_kernel(Params p, int64_t units, bool aligned) {
  for_tiles(p.sequences.count, units, [&](int64_t n, int64_t unit) {
    store_state(lane_of<T>(p, unit, aligned), sequence_at(p.sequences, n));
  });
}

}  // namespace

void causal_conv1d(const Params& p, NativeStream stream) {
  if (p.validate) validate("causal_conv1d", p.sequences, stream);
  const int64_t sequences = p.sequences.count, tokens = p.sequences.tokens;
  if (p.channels == 0 || sequences == 0) return;
  with_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int64_t kSize = Lane<T>::kSize;
    const int64_t units = (p.channels + kSize - 1) / kSize;
    const bool aligned = p.x.batch % kSize == 0 && p.x.token % kSize == 0 && p.y.batch % kSize == 0 && p.y.token % kSize == 0;
    const glue::TileShape per_sequence = glue::tile_shape(sequences, units);
    if (tokens <= kWholeTokens)
      return launch(conv_sequences_kernel<T>, per_sequence.grid, per_sequence.block, 0, stream, p, units, aligned);
    // Long runs read less twice, short ones fill the device.
    const int64_t batch = p.sequences.cu_seqlens ? 1 : sequences;
    int64_t run = 64;
    while (run > 8 && batch * tokens / run * units < 1 << 18) run /= 2;
    const glue::TileShape per_run = glue::tile_shape(batch * ((tokens + run - 1) / run), units);
    launch(conv_runs_kernel<T>, per_run.grid, per_run.block, 0, stream, p, batch, run, units, aligned);
    if (p.final.data) launch(conv_states_kernel<T>, per_sequence.grid, per_sequence.block, 0, stream, p, units, aligned);
  });
}

}  // namespace culebra::CUL_DEVICE_NS
