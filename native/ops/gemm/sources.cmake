set(CULEBRA_OP_SOURCES ${CULEBRA_OP_SOURCES}
  ${CMAKE_CURRENT_LIST_DIR}/../../abi/gemm.cc
  ${CMAKE_CURRENT_LIST_DIR}/gemm.cc
  ${CMAKE_CURRENT_LIST_DIR}/gemm_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/gemm_plan.cc
  ${CMAKE_CURRENT_LIST_DIR}/packed_weights.cc
  ${CMAKE_CURRENT_LIST_DIR}/packed_weights_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/quantize_weights.cc
  ${CMAKE_CURRENT_LIST_DIR}/quantize_weights_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/w4a16_gemm.cc
  ${CMAKE_CURRENT_LIST_DIR}/w4a16_gemm_cpu.cc)
set(CULEBRA_OP_KERNELS ${CULEBRA_OP_KERNELS}
  ${CMAKE_CURRENT_LIST_DIR}/gemm.cu
  ${CMAKE_CURRENT_LIST_DIR}/packed_weights.cu
  ${CMAKE_CURRENT_LIST_DIR}/quantize_weights.cu
  ${CMAKE_CURRENT_LIST_DIR}/split_sum.cu
  ${CMAKE_CURRENT_LIST_DIR}/w4a16_gemm.cu)
set(CULEBRA_NATIVE_TESTS ${CULEBRA_NATIVE_TESTS}
  ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/gemm_cpu_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/gemm_kernels_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/gemm_packing_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/gemm_plan_test.cc)
# Every backend of quantize_weights must choose the same integers.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/quantize_weights_cpu.cc PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
