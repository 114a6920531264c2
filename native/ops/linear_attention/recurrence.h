// The recurrences over a state per sequence and value head: what all of them have in common. Variants are data: which
// decay, which update, where gates come from. Maths and decisions: README.md.
#pragma once
#include "abi/op.h"
#include "culebra/linear_attention.h"
#include "ops/linear_attention/recurrence_plan.h"
#include "ops/linear_attention/sequences.h"

namespace culebra {

// What a state is multiplied by before a token is added to it.
enum class Decay : uint8_t {
  none,
  head,     // one factor a head: gate is [HV]
  token,    // one factor a token and head: gate is [B,T,HV]
  channel,  // one factor a token, head and key channel: gate is [B,T,HV,K]
};

// What the gate tensor holds.
enum class GateMode : uint8_t {
  log,          // f32 log decays g
  softplus,     // a in q's dtype: g = -exp(a_log) softplus(a + dt_bias)
  lower_bound,  // a in q's dtype: g = lower_bound sigmoid(exp(a_log) (a + dt_bias))
};

// Log gates below count as this.
inline constexpr float kLowestLogGate = -30.0f;
// Under the root of the norm of q and k.
inline constexpr float kL2NormEps = 1e-6f;

struct RecurrenceParams {
  // Per token and head: element (b, t, h, i) at data[b batch + t token + h head + i]. A tensor without a token axis
  // has strides 0 there.
  struct Heads {
    void* data = nullptr;
    int64_t batch = 0, token = 0, head = 0;
  };
  // A state: element (n, h, v, k) at data[n row + h head + v v_stride + k k_stride]; which of the last two is 1 is the
  // state layout. mixture_of_memories has an axis between n and h: memory m is m * memory further.
  struct States {
    float* data = nullptr;
    int64_t row = 0, head = 0, v_stride = 0, k_stride = 0, memory = 0;
    float* at(int64_t n, int64_t h, int64_t m = 0) const { return data + n * row + h * head + m * memory; }
  };
  // A vector a sequence and head: element (n, h, k) at data[n row + h head + k].
  struct Vectors {
    float* data = nullptr;
    int64_t row = 0, head = 0;
    float* at(int64_t n, int64_t h) const { return data + n * row + h * head; }
  };

  const char* op = "";  // for messages of work that runs later
  Sequences sequences;
  int64_t batch = 0;  // B; T is sequences.tokens
  DType dtype = DType::f32;
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  Heads q, k, v, o;
  Heads beta;  // f32 [B,T,HV]; data is null for the plain update S += k v^T, else the delta rule
  Decay decay = Decay::none;
  GateMode gate_mode = GateMode::log;
  Heads gate;                      // see Decay and GateMode
  const float* a_log = nullptr;    // [HV]
  const float* dt_bias = nullptr;  // [HV], or [HV,K] with rows dt_bias_head apart
  int64_t dt_bias_head = 1;
  float lower_bound = 0;
  // What another pass has keys and queries multiplied with, dense f32 [B,T,H]; null: 1. Kernels read them; the cpu has its own.
  const float* key_factor = nullptr;
  const float* query_factor = nullptr;
  States initial, final, checkpoints;  // data is null where absent
  int64_t checkpoint_count = 0;        // rows of checkpoints
  int32_t checkpoint_every = 0;
  float scale = 1;
  bool l2norm = false;
  bool batch_invariant = false;
  bool validate = false;  // CUL_OP_VALIDATE: index tensors are checked on the device too
  RecurrencePlan plan;

  bool delta() const { return beta.data != nullptr; }
  CUL_NUMERIC int64_t factor_at(int64_t batch, int64_t token, int64_t key_head) const {
    return (batch * sequences.tokens + token) * key_heads + key_head;
  }
  int64_t key_head(int64_t value_head) const { return value_head / (value_heads / key_heads); }
  // Rows of checkpoints of the sequences before n.
  CUL_NUMERIC int64_t checkpoints_before(int64_t n) const {
    if (!sequences.cu_seqlens) return n * (sequences.tokens / checkpoint_every);
    int64_t before = 0;
    for (int64_t m = 0; m < n; ++m) before += (sequences.cu_seqlens[m + 1] - sequences.cu_seqlens[m]) / checkpoint_every;
    return before;
  }

  // Sequences, then the room for checkpoints (abi/indices.h).
  int64_t index_items() const { return sequences.count + (checkpoint_every ? 1 : 0); }
  CUL_NUMERIC bool valid(int64_t i) const {
    return i < sequences.count ? sequences.valid(i) : checkpoints_before(sequences.count) <= checkpoint_count;
  }
  std::string invalid_text(int64_t i) const;
};

// What one operator of cul_recurrence_args takes.
struct RecurrenceForm {
  Decay decay = Decay::none;  // token also allows g_head, where head_gates
  bool delta = false;         // beta, and qk_l2norm
  bool head_gates = false;
  bool raw_gates = false;    // gate_mode softplus
  bool lower_bound = false;  // gate_mode lower_bound
};

RecurrenceParams check_recurrence(const Call& call, const cul_recurrence_args& args, const RecurrenceForm& form);
RecurrenceParams check_simple_gla(const Call& call, const cul_recurrence_args& args);
RecurrenceParams check_gated_linear_attention(const Call& call, const cul_recurrence_args& args);
RecurrenceParams check_delta_rule(const Call& call, const cul_recurrence_args& args);
RecurrenceParams check_gated_delta_rule(const Call& call, const cul_recurrence_args& args);
RecurrenceParams check_kda(const Call& call, const cul_recurrence_args& args);

CUL_DECLARE_COLUMNS(recurrence, RecurrenceParams)

}  // namespace culebra
