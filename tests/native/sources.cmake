# Native tests beside those of the operator families (native/ops/*/sources.cmake adds these).
list(APPEND CULEBRA_NATIVE_TESTS
  ${CMAKE_CURRENT_LIST_DIR}/call_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/communicator_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/module_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/nccl_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/replay_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/runtime_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/thread_pool_test.cc)
# In NCCL's place, on any machine.
add_library(culebra_fake_nccl MODULE ${CMAKE_CURRENT_LIST_DIR}/fake_nccl.cc)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/nccl_test.cc PROPERTIES
  COMPILE_DEFINITIONS "FAKE_NCCL=\"$<TARGET_FILE:culebra_fake_nccl>\"")
if(CULEBRA_HAS_CUDA)
  # In cuBLASLt's place, on any machine.
  add_library(culebra_fake_cublaslt MODULE ${CMAKE_CURRENT_LIST_DIR}/fake_cublaslt.cc)
  list(APPEND CULEBRA_NATIVE_TESTS ${CMAKE_CURRENT_LIST_DIR}/cublaslt_test.cc)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cublaslt_test.cc PROPERTIES
    COMPILE_DEFINITIONS "FAKE_CUBLASLT=\"$<TARGET_FILE:culebra_fake_cublaslt>\"")
endif()
