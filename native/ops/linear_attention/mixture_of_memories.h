// mixture_of_memories: gated delta rule steps on the memories that each token is routed to. Maths: README.md.
#pragma once
#include "ops/linear_attention/recurrence.h"

namespace culebra {

// q, k, v, beta and gate of RecurrenceParams are those of slot 0. States have the axis of memories.
struct MixtureOfMemoriesParams : RecurrenceParams {
  // Elements from a slot's tensors to the next slot's; 0 where the slots share them.
  struct Slots {
    int64_t q = 0, k = 0, v = 0, beta = 0, gate = 0;
  };
  // Element (b, t, j) at data[b batch + t token + j].
  struct Routes {
    void* data = nullptr;
    int64_t batch = 0, token = 0;
  };

  int64_t memories = 0, slots = 0;
  Slots slot;
  Routes ids, weights;  // i32; f32

  // On the device, in the workspace: each memory's tokens as a sequence of its own, memory m of sequence n being n M + m. An entry is a
  // token's slot; q, k, v, o dense, of q's type.
  struct Gathered {
    bool used = false;
    int32_t *begins = nullptr, *read_rows = nullptr, *write_rows = nullptr;  // cu_seqlens and the rows of states
    int32_t *sources = nullptr;  // of entries: (b T + t) k + j
    int32_t *places = nullptr;   // the other way round; undefined for slots that are not used
    void *q = nullptr, *k = nullptr, *v = nullptr, *o = nullptr;
    float *beta = nullptr, *gate = nullptr;  // log gates
  };
  Gathered gathered;
  int64_t entries() const { return batch * sequences.tokens * slots; }  // at most
  RecurrenceParams inner() const;                                       // the recurrence of the gathered ones

  float* own_states = nullptr;  // workspace: states of a call on the device that does not return them, with the rows of initial

  States work_states() const {
    const int64_t head = value_dim * key_dim, memory = value_heads * head;
    return {own_states, memories * memory, head, key_dim, 1, memory};
  }
  CUL_NUMERIC int32_t id(int64_t b, int64_t t, int64_t j) const {
    return static_cast<const int32_t*>(ids.data)[b * ids.batch + t * ids.token + j];
  }
  // The recurrence's, then the routes (abi/indices.h). Tokens behind the last sequence are nobody's.
  int64_t index_items() const { return RecurrenceParams::index_items() + batch * sequences.tokens * slots; }
  CUL_NUMERIC bool valid(int64_t i) const {
    const int64_t others = sequences.count + (checkpoint_every ? 1 : 0), route = i - others;
    if (route < 0) return RecurrenceParams::valid(i);
    const int64_t token = route / slots, b = token / sequences.tokens, t = token - b * sequences.tokens;
    if (sequences.cu_seqlens && t >= sequences.cu_seqlens[sequences.count]) return true;
    const int32_t memory = id(b, t, route % slots);
    return memory >= -1 && memory < memories;
  }
  std::string invalid_text(int64_t i) const;

  float weight(int64_t b, int64_t t, int64_t j) const {
    return static_cast<const float*>(weights.data)[b * weights.batch + t * weights.token + j];
  }
};

MixtureOfMemoriesParams check_mixture_of_memories(const Call& call, const cul_mixture_of_memories_args& args);
CUL_DECLARE_COLUMNS(mixture_of_memories, MixtureOfMemoriesParams)

}  // namespace culebra
