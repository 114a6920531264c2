#include "ops/linear_attention/sequences.h"

namespace culebra {

Sequences check_sequences(const Call& call, int64_t batch, int64_t tokens, const View& cu_seqlens,
                          const View& read_index, const View& write_index, const View& initial_state,
                          const View& final_state) {
  Sequences s;
  s.count = batch;
  s.tokens = tokens;
  if (cu_seqlens) {
    call.rank(cu_seqlens, 1, "[N+1]");
    call.dtype(cu_seqlens, {DType::i32});
    if (batch != 1)
      call.refuse(CUL_SHAPE, "with cu_seqlens the sequences are packed in one row, but the batch dimension is %lld",
                  static_cast<long long>(batch));
    if (cu_seqlens[0] < 1) call.refuse(CUL_SHAPE, "cu_seqlens is []; it must be [N+1], beginning with 0");
    s.count = cu_seqlens[0] - 1;
    s.cu_seqlens = cu_seqlens.as<const int32_t>();
  }

  const bool pool = read_index.present || write_index.present;
  if (pool) {
    if (!read_index || !write_index)
      call.refuse(CUL_NULL_POINTER, "state_read_index and state_write_index come together, but %s is absent",
                  read_index ? "state_write_index" : "state_read_index");
    if (!initial_state)
      call.refuse(CUL_NULL_POINTER, "%s is required with state_read_index: it is the pool", initial_state.name);
    for (const View* index : {&read_index, &write_index}) {
      call.rank(*index, 1, "[N]");
      call.dtype(*index, {DType::i32});
      call.shape(*index, {s.count}, "[N], an entry a sequence");
    }
    s.read_index = read_index.as<const int32_t>();
    s.write_index = write_index.as<const int32_t>();
  }
  for (const View* state : {&initial_state, &final_state})
    if (*state && !pool && (*state)[0] != s.count)
      call.refuse(CUL_SHAPE, "%s is %s but there are %lld sequences; its first dimension must be as many", state->name,
                  shape_text(*state).c_str(), static_cast<long long>(s.count));
  if (initial_state && final_state) call.same_shape(final_state, initial_state);
  s.state_rows = initial_state ? initial_state[0] : s.count;
  return s;
}

void Sequences::require_valid(const char* op) const {
  if (cu_seqlens) {
    if (cu_seqlens[0] != 0)
      throw DeviceError(format("%s: cu_seqlens begins with %d; it must begin with 0", op, cu_seqlens[0]));
    for (int64_t n = 0; n < count; ++n)
      if (cu_seqlens[n + 1] < cu_seqlens[n] || cu_seqlens[n + 1] > tokens)
        throw DeviceError(format("%s: cu_seqlens[%lld] = %d; it must lie between its predecessor %d and T = %lld", op,
                                 static_cast<long long>(n + 1), cu_seqlens[n + 1], cu_seqlens[n],
                                 static_cast<long long>(tokens)));
  }
  if (!read_index) return;
  for (int64_t n = 0; n < count; ++n)
    for (const auto& [index, name] : {std::pair{read_index, "read"}, std::pair{write_index, "write"}})
      if (index[n] < -1 || index[n] >= state_rows)
        throw DeviceError(format("%s: state_%s_index[%lld] = %d; it must be -1 or a row of the pool of %lld", op, name,
                                 static_cast<long long>(n), index[n], static_cast<long long>(state_rows)));
}

}  // namespace culebra
