// What the vectorised part of the nsa operators shares with the rest of their cpu columns.
#pragma once
#include <algorithm>

#include "ops/sparse_attention/nsa.h"

namespace culebra::cpu {

enum class NsaStep { compressed, select, selected, all };

// Queries of a work item: with their heads they fill a tile of 32 rows.
inline int64_t nsa_item_queries(const NsaParams& p) { return std::max<int64_t>(32 / p.group(), 1); }

// Writes topk entries to idx, ascending, -1 padded, and returns how many blocks were chosen of `candidates`; the first
// `seen` of `probabilities` count.
int64_t choose_blocks(const NsaParams& p, const float* probabilities, int64_t seen, int64_t candidates, int32_t* idx);

}  // namespace culebra::cpu
