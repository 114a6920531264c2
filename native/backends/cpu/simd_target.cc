#include "backends/cpu/simd_target.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/simd_target.cc"
#define CULEBRA_SIMD_INTEGER_DOT
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
const char* target_name() { return hwy::TargetName(HWY_TARGET); }
}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(target_name);
const char* simd_target_name() { return HWY_DYNAMIC_DISPATCH(target_name)(); }
}  // namespace culebra::cpu
#endif
