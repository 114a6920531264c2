#include "ops/linear_attention/sequences.h"

namespace culebra {

Sequences check_sequences(const Call& call, int64_t batch, int64_t tokens, const View& cu_seqlens,
                          const View& read_index, const View& write_index, const View& initial_state,
                          const View& final_state) {
  Sequences s;
  s.count = batch;
  s.tokens = tokens;
  s.every_token = call.validate();
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

std::string Sequences::invalid_text(int64_t n) const {
  if (cu_seqlens && cu_seqlens[0] != 0) return format("cu_seqlens begins with %d; it must begin with 0", cu_seqlens[0]);
  if (cu_seqlens && !valid_starts(cu_seqlens, n, tokens))
    return format("cu_seqlens[%lld] = %d; it must lie between its predecessor %d and T = %lld", ll(n + 1), cu_seqlens[n + 1], cu_seqlens[n],
                  ll(tokens));
  if (cu_seqlens && every_token && n + 1 == count && cu_seqlens[count] != tokens)
    return format("cu_seqlens ends with %d; the validator wants it to end with T = %lld", cu_seqlens[count], ll(tokens));
  const bool read = !valid_row(read_index[n]);
  return format("state_%s_index[%lld] = %d; it must be -1 or a row of the pool of %lld", read ? "read" : "write", ll(n),
                read ? read_index[n] : write_index[n], ll(state_rows));
}

}  // namespace culebra
