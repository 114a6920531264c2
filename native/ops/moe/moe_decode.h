// moe_mlp for few tokens: one launch whose blocks all run at once. What the plan decides, and where things lie in shared memory.
#pragma once
#include <string>

#include "backends/backend.h"
#include "device/numeric.h"
#include "ops/moe/experts.h"

namespace culebra {

struct MoeMlpOperands;

// What a block of the kernel works in. A unit is 32 rows of one expert's matrix; the warps of a block share its columns, each in steps
// of 64 bytes a row, which it fetches kStages - 1 steps ahead.
struct MoeDecodeShape {
  static constexpr int kWarps = 8, kStages = 5, kUnitRows = 32, kStepBytes = 64, kColumns = 8;  // columns: tokens of a product
  static constexpr int kSumPitch = kUnitRows + 1;
  static constexpr int64_t kSumBytes = 2 * kWarps * kColumns * kSumPitch * 4;  // two units' partial sums
  static constexpr int64_t kMaxExperts = 8192, kMaxSlots = 8192;
};

struct MoeDecodePlan {
  bool suits = false;
  int32_t tokens = 0;  // of a launch
  int32_t blocks = 0;
  int32_t stage_bytes = 0;
  int32_t side_groups = 0;  // int4: groups of a step
  int64_t x_pitch = 0, hidden_pitch = 0;  // of rows in shared memory, in elements
  int64_t hidden_experts = 0;             // whose rows fit there at once
  // Bytes into the shared memory of a block: expert table at 0, list, routing, ring, sums, rows.
  int64_t list_at = 0, routing_at = 0, ring_at = 0, sums_at = 0, rows_at = 0, shared_bytes = 0;
  // The workspace: hidden [experts][tokens][hidden_stride], then outputs f32 [experts][tokens][D]; experts: those that are selected.
  int64_t hidden_stride = 0, outputs_at = 0;
  uint64_t workspace_bytes = 0;
};

// Pure. With !suits, *reason says why not.
MoeDecodePlan plan_moe_decode(const MoeMlpOperands& p, const DeviceCaps& caps, std::string* reason);

}  // namespace culebra
