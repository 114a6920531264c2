#pragma once

namespace culebra::cpu {

// The instruction set that the vector code runs on here, as Highway names it: "AVX3_DL", "AVX2", ...
const char* simd_target_name();

}  // namespace culebra::cpu
