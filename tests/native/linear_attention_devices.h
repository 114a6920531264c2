// The devices that tests of this family run on.
#pragma once
#include "glue_harness.h"

namespace culebra::linear_attention_testing {

// simt's second device, which emulates compute capability 9.0, counts as a backend.
inline constexpr int32_t kHopper = CUL_BACKEND_COUNT;
inline std::vector<int32_t> devices() {
  std::vector<int32_t> list = glue_testing::backends();
  if (list.back() == CUL_BACKEND_SIMT) list.push_back(kHopper);
  return list;
}
struct Device : glue_testing::Machine {
  explicit Device(int32_t choice) : Machine(choice == kHopper ? CUL_BACKEND_SIMT : choice) {
    if (choice != kHopper) return;
    cul_stream_destroy(stream);
    EXPECT_EQ(cul_device_close(device), CUL_OK);
    EXPECT_EQ(cul_device_open(CUL_BACKEND_SIMT, 1, nullptr, &device), CUL_OK) << cul_last_error();
    EXPECT_EQ(cul_stream_create(device, &stream), CUL_OK) << cul_last_error();
    cul_device_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(cul_device_get_info(device, &info), CUL_OK);
    id = info.id;
  }
};
inline std::string device_name(int32_t choice) { return choice == kHopper ? "hopper" : cul_backend_name(choice); }

}  // namespace culebra::linear_attention_testing
