// moe_align: its plan and its columns.
#pragma once
#include "abi/indices.h"
#include "abi/op.h"
#include "culebra/moe.h"
#include "device/numeric.h"

namespace culebra {

struct MoeAlignParams {
  const int32_t* ids = nullptr;  // [T,k]
  int64_t ids_stride = 0;
  const int32_t* expert_map = nullptr;  // null: the experts are the local ones
  int32_t *sorted = nullptr, *block_expert = nullptr, *inverse = nullptr, *n_padded = nullptr;
  int64_t* offsets = nullptr;
  int64_t tokens = 0, k = 0;
  int64_t capacity = 0, blocks = 0;  // entries of sorted and of block_expert
  int32_t experts = 0, local_experts = 0, block = 0;
  bool validate = false;

  // Runs of slots that are counted, and placed, one beside the other.
  int64_t chunk = 0, chunks = 0;
  int32_t* workspace = nullptr;

  CUL_NUMERIC int64_t slots() const { return tokens * k; }
  // The workspace: how many slots of expert e the chunks before c have [chunks, local_experts], and where an expert begins in `sorted`.
  CUL_NUMERIC int32_t* counts(int64_t c) const { return workspace + c * local_experts; }
  CUL_NUMERIC int32_t* padded_offsets() const { return counts(chunks); }
  uint64_t workspace_bytes() const { return static_cast<uint64_t>(4 * (chunks + 1) * local_experts); }

  CUL_NUMERIC int32_t id(int64_t slot) const {
    // Slots fit 31 bits, and GPUs divide 64 bits in software.
    const auto token = static_cast<uint32_t>(slot) / static_cast<uint32_t>(k);
    return ids[token * ids_stride + (slot - token * k)];
  }
  // -1: skipped
  CUL_NUMERIC int32_t local_expert(int64_t slot) const {
    const int32_t e = id(slot);
    if (e < 0 || e >= experts) return -1;
    const int32_t local = expert_map ? expert_map[e] : e;
    return local < 0 || local >= local_experts ? -1 : local;
  }

  // Slots, then the entries of the map (abi/indices.h).
  int64_t index_items() const { return slots() + (expert_map ? experts : 0); }
  CUL_NUMERIC bool valid(int64_t i) const {
    const int32_t value = i < slots() ? id(i) : expert_map[i - slots()];
    return value >= -1 && value < (i < slots() ? experts : local_experts);
  }
  std::string invalid_text(int64_t i) const;
};

// Sets chunk and chunks of a call whose slots are known.
void divide_slots(MoeAlignParams& p, bool cpu);

MoeAlignParams check_moe_align(const Call& call, const cul_moe_align_args& args);

CUL_DECLARE_COLUMNS(moe_align, MoeAlignParams)

}  // namespace culebra
