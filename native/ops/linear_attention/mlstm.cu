// mlstm on the device: its gates make a decay and a weight of keys, then it is a recurrence with plain update.
#include "ops/linear_attention/mlstm.h"
#include "device/validate.h"
#include "ops/linear_attention/normaliser.h"
#include "ops/linear_attention/chunk.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = MlstmParams;

CUL_DEVICE_FN double log_sigmoid(double x) { return (x < 0 ? x : 0.0) - log1p(exp(-fabs(x))); }

CUL_DEVICE_FN double gate_at(const Params& p, const RecurrenceParams::Heads& x, const SequenceSpan& seq, int64_t token, int64_t head) {
  const double value = *head_row<const float>(x, seq.batch, token, head), cap = p.soft_cap;
  return cap > 0 ? cap * tanh(value / cap) : value;
}

constexpr int kWarps = 4;

// The 32 tokens of a chunk from `first` on, a lane each: log decay (sum) and input gate (peak), behind the sequence's end those that change nothing.
struct Gates : Params::Shift {
  bool inside;
  CUL_DEVICE_FN Gates(const Params& p, const ChunkSpan& chunk, int64_t head, int first, int lane) : Shift{0, -INFINITY}, inside(first + lane < chunk.count) {
    if (!inside) return;
    const int64_t token = chunk.sequence.begin + chunk.begin + first + lane;
    sum = log_sigmoid(gate_at(p, p.forget, chunk.sequence, token, head));
    peak = gate_at(p, p.input, chunk.sequence, token, head);
  }
};
// Of the lanes up to each, what they do to m together.
CUL_DEVICE_FN Params::Shift shift_before(Params::Shift x, int lane) {
  for (int offset = 1; offset < 32; offset *= 2) {
    const double sum_before = __shfl_up_sync(kFullMask, x.sum, offset), peak_before = __shfl_up_sync(kFullMask, x.peak, offset);
    if (lane < offset) continue;
    x.peak = x.peak < peak_before + x.sum ? peak_before + x.sum : x.peak;
    x.sum += sum_before;
  }
  return x;
}
CUL_DEVICE_FN double shifted(double m, const Params::Shift& x) { return m + x.sum < x.peak ? x.peak : m + x.sum; }

// Computes: of each chunk of 64 tokens what it does to m: m' = max(m + sum, peak)
// Shapes:   i, f [B,T,H]; shifts [slots,H]
// Layouts:  i, f any strides; shifts dense
// Tiles:    a warp has a chunk of one head, 32 tokens at a time
// Shared:   none
// Order:    a scan over lanes, then the two halves
// Numerics: double: what is subtracted may be in the thousands
// Needs:    sm_80. Limit: the launch
// Source:   Beck et al., arXiv:2405.04517; the maximum of shifted maxima is associative
__global__ void __launch_bounds__(32 * kWarps) mlstm_shifts_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t items = p.slots * p.key_heads;
  for (int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; item < items; item += int64_t{gridDim.x} * kWarps) {
    const int64_t slot = divide(item, p.key_heads), head = item - slot * p.key_heads;
    const ChunkSpan chunk = span_of_slot(p.sequences, slot);
    if (chunk.count == 0) continue;
    const Params::Shift low = shift_before(Gates(p, chunk, head, 0, lane), lane), high = shift_before(Gates(p, chunk, head, 32, lane), lane);
    if (lane == 31) p.shifts[item] = {low.sum + high.sum, shifted(low.peak, high)};
  }
}

// Computes: m before each chunk, in place of the chunk's sum, and behind the last
// Shapes:   shifts [slots,H]; m [N,H]
// Layouts:  dense; m any stride of rows
// Tiles:    a warp has one head of one sequence, 32 chunks at a time
// Shared:   none
// Order:    a scan over lanes, its carry the last lane
// Numerics: double
// Needs:    sm_80. Limit: a dependent scan every 2048 tokens
// Source:   Beck et al., arXiv:2405.04517
__global__ void __launch_bounds__(32) mlstm_carry_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t items = p.sequences.count * p.key_heads;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t n = divide(item, p.key_heads), head = item - n * p.key_heads;
    const SequenceSpan seq = sequence_at(p.sequences, n);
    if (seq.skipped) continue;
    double m = p.initial_m.data ? static_cast<double>(p.initial_m.data[seq.read_row * p.initial_m.row + head]) : 0.0;
    const int64_t first = first_slot(p.sequences, n, kChunk), chunks = (seq.length + kChunk - 1) / kChunk;
    for (int64_t begin = 0; begin < chunks; begin += 32) {
      Params::Shift* const shift = p.shifts + (first + begin + lane) * p.key_heads + head;
      const bool inside = begin + lane < chunks;
      const double own = shifted(m, shift_before(inside ? *shift : Params::Shift{0, -INFINITY}, lane)), before = __shfl_up_sync(kFullMask, own, 1);
      if (inside) shift->sum = lane ? before : m;
      m = __shfl_sync(kFullMask, own, 31);
    }
    __syncwarp();  // every lane has read the initial m, which may lie here
    if (p.final_m.data && lane == 0) p.final_m.data[seq.write_row * p.final_m.row + head] = static_cast<float>(m);
  }
}

// Computes: exp: m' = max(logsigmoid(f) + m, i), log decay logsigmoid(f) + m - m', weight e^(i - m'), least e^-m'; sigmoid: logsigmoid(f),
//           sigmoid(i), 1; before that c tanh(x / c) where gates are capped
// Shapes:   i, f [B,T,H]; shifts [slots,H]; results f32 [B,T,H]
// Layouts:  i, f any strides; the rest dense
// Tiles:    a warp has a chunk of one head, 32 tokens at a time
// Shared:   none
// Order:    the maximum of shifted maxima is a scan over lanes, its carry the last lane
// Numerics: double
// Needs:    sm_80. Limit: the launch
// Source:   Beck et al., arXiv:2405.04517
__global__ void __launch_bounds__(32 * kWarps) mlstm_gates_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t items = p.slots * p.key_heads;
  for (int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; item < items; item += int64_t{gridDim.x} * kWarps) {
    const int64_t slot = divide(item, p.key_heads), head = item - slot * p.key_heads;
    const ChunkSpan chunk = span_of_slot(p.sequences, slot);
    if (chunk.count == 0) continue;
    double m = p.exponential ? p.shifts[item].sum : 0.0;
    for (int first = 0; first < chunk.count; first += 32) {
      const Gates gates(p, chunk, head, first, lane);
      double decay = gates.sum, weight, least = 1;
      if (p.exponential) {
        const double own = shifted(m, shift_before(gates, lane)), before = __shfl_up_sync(kFullMask, own, 1);
        decay += (lane ? before : m) - own;
        weight = exp(gates.peak - own);
        least = exp(-own);
        m = __shfl_sync(kFullMask, own, 31);
      } else {
        weight = exp(log_sigmoid(gates.peak));
      }
      if (!gates.inside) continue;
      const int64_t at = p.factor_at(chunk.sequence.batch, chunk.sequence.begin + chunk.begin + first + lane, head);
      p.decays[at] = static_cast<float>(decay);
      p.weights[at] = static_cast<float>(weight);
      if (p.normalize) p.least[at] = static_cast<float>(least);
    }
  }
}

}  // namespace

void mlstm(const Params& p, NativeStream stream) {
  if (p.sequences.count == 0) return;
  if (p.validate) validate(p.op, p, stream);
  const auto grid = [](int64_t blocks) { return dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)); };
  const int64_t chunks = (p.slots * p.key_heads + kWarps - 1) / kWarps;
  if (p.exponential) {
    if (chunks > 0) launch(mlstm_shifts_kernel, grid(chunks), dim3(32 * kWarps), 0, stream, p);
    launch(mlstm_carry_kernel, grid(p.sequences.count * p.key_heads), dim3(32), 0, stream, p);
  }
  if (chunks > 0) launch(mlstm_gates_kernel, grid(chunks), dim3(32 * kWarps), 0, stream, p);
  if (p.normalize) run_normaliser(p.normaliser(), stream);
  recurrence(p.inner(), stream);
}

}  // namespace culebra::CUL_DEVICE_NS
