// mlstm on the device: its gates make a decay and a weight of keys, then it is a recurrence with plain update.
#include "ops/linear_attention/mlstm.h"
#include "ops/linear_attention/normaliser.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = MlstmParams;

CUL_DEVICE_FN double log_sigmoid(double x) { return (x < 0 ? x : 0.0) - log1p(exp(-fabs(x))); }

CUL_DEVICE_FN double gate_at(const Params& p, const RecurrenceParams::Heads& x, const SequenceSpan& seq, int64_t token, int64_t head) {
  const double value = *head_row<const float>(x, seq.batch, token, head), cap = p.soft_cap;
  return cap > 0 ? cap * tanh(value / cap) : value;
}

// Computes: exp: m' = max(logsigmoid(f) + m, i), log decay logsigmoid(f) + m - m', weight e^(i - m'), least e^-m'; sigmoid: logsigmoid(f),
//           sigmoid(i), 1; before that c tanh(x / c) where gates are capped
// Shapes:   i, f [B,T,H]; m [N,H]; results f32 [B,T,H]
// Layouts:  i, f any strides; results dense
// Tiles:    a warp has one head of one sequence, 32 tokens at a time
// Shared:   none
// Order:    the maximum of shifted maxima is a scan over lanes, its carry the last lane
// Numerics: double: what is subtracted may be in the thousands
// Needs:    sm_80. Limit: a dependent scan every 32 tokens
// Source:   Beck et al., arXiv:2405.04517
__global__ void __launch_bounds__(32) mlstm_gates_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t items = p.sequences.count * p.key_heads;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t n = divide(item, p.key_heads), head = item - n * p.key_heads;
    const SequenceSpan seq = sequence_at(p.sequences, n);
    if (seq.skipped) continue;
    double m = p.initial_m.data ? static_cast<double>(p.initial_m.data[seq.read_row * p.initial_m.row + head]) : 0.0;
    for (int64_t begin = 0; begin < seq.length; begin += 32) {
      const bool inside = begin + lane < seq.length;
      const int64_t token = seq.begin + begin + lane;
      const double log_decay = inside ? log_sigmoid(gate_at(p, p.forget, seq, token, head)) : 0.0;
      const double input = inside ? gate_at(p, p.input, seq, token, head) : -INFINITY;
      double decay = log_decay, weight = input, least = 1;
      if (p.exponential) {
        // m of a token is max(m before + sum, peak).
        double sum = log_decay, peak = input;
        for (int offset = 1; offset < 32; offset *= 2) {
          const double sum_before = __shfl_up_sync(kFullMask, sum, offset), peak_before = __shfl_up_sync(kFullMask, peak, offset);
          if (lane < offset) continue;
          peak = peak < peak_before + sum ? peak_before + sum : peak;
          sum += sum_before;
        }
        const double own = m + sum < peak ? peak : m + sum, before = __shfl_up_sync(kFullMask, own, 1);
        decay = log_decay + (lane ? before : m) - own;
        weight = exp(input - own);
        least = exp(-own);
        m = __shfl_sync(kFullMask, own, 31);
      } else {
        weight = exp(log_sigmoid(input));
      }
      if (!inside) continue;
      const int64_t at = p.factor_at(seq.batch, token, head);
      p.decays[at] = static_cast<float>(decay);
      p.weights[at] = static_cast<float>(weight);
      if (p.normalize) p.least[at] = static_cast<float>(least);
    }
    __syncwarp();  // every lane has read the initial m, which may lie here
    if (p.final_m.data && lane == 0) p.final_m.data[seq.write_row * p.final_m.row + head] = static_cast<float>(m);
  }
}

}  // namespace

void mlstm(const Params& p, NativeStream stream) {
  if (p.sequences.count == 0) return;
  if (p.validate) validate_sequences(p.op, p.sequences, stream);
  const int64_t heads = p.sequences.count * p.key_heads;
  launch(mlstm_gates_kernel, dim3(static_cast<unsigned>(heads < 0x7fffffff ? heads : 0x7fffffff)), dim3(32), 0, stream, p);
  if (p.normalize) run_normaliser(p.normaliser(), stream);
  recurrence(p.inner(), stream);
}

}  // namespace culebra::CUL_DEVICE_NS
