// What the operators on packed sequences check and keep alike: q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv], cu_q, cu_k, o, lse.
#pragma once
#include "abi/indices.h"
#include "abi/op.h"
#include "device/numeric.h"

namespace culebra {

// Element (token, head, d) at data[token row + head head + d].
struct TokenRows {
  void* data = nullptr;
  int64_t row = 0, head = 0;

  template <class T>
  CUL_NUMERIC T* at(int64_t token, int64_t h) const {
    return static_cast<T*>(data) + token * row + h * head;
  }
};
TokenRows token_rows(const View& v);  // [T,H,D] or [T,H]; no data where absent

struct PackedHeads {
  DType dtype = DType::f32;
  int64_t sequences = 0, query_heads = 0, kv_heads = 0, dim = 0, value_dim = 0;
  int64_t query_rows = 0, key_rows = 0;  // of the tensors: what the sequences may take
  TokenRows q, k, v, o, lse;             // lse.data is null where absent
  const int32_t* cu_q = nullptr;
  const int32_t* cu_k = nullptr;
  float scale = 1;
  bool aligned = false;   // every row of q, k, v and o begins and ends at a multiple of 16 bytes
  bool validate = false;

  CUL_NUMERIC int64_t group() const { return query_heads / kv_heads; }
};

// The operands' types and shapes, in every op that has them; v, o and lse may be absent. `keys` names the letters of k.
PackedHeads check_packed(const Call& call, const View& q, const View& k, const View& v, const View& cu_q, const View& cu_k,
                         const View& o, const View& lse, float scale);
// cu i32 [B+1].
void check_starts(const Call& call, const View& cu, int64_t sequences);
// No output overlaps itself, another output or an operand. Absent ones are passed over.
void check_outputs(const Call& call, std::initializer_list<const View*> outputs, std::initializer_list<const View*> inputs);
// What the kernels do not take, where the call is for them.
void check_kernel_limits(const Call& call, int64_t dim, int64_t value_dim);
void at_least(const Call& call, int64_t value, int64_t least, const char* name);

// What is wrong where valid_starts says no.
std::string starts_text(const char* name, const int32_t* cu, int64_t b, int64_t rows);

}  // namespace culebra
