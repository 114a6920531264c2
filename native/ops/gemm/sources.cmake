culebra_family(gemm
  SOURCES
    gemm
    gemm_cpu
    gemm_plan
    packed_weights
    packed_weights_cpu
    quantize_activations
    quantize_activations_cpu
    quantize_weights
    quantize_weights_cpu
    w4a16_gemm
    w4a16_gemm_cpu
  KERNELS
    gemm
    packed_weights
    quantize_activations
    quantize_weights
    split_sum
    w4a16_gemm
  TESTS
    gemm_cpu
    gemm_fp8
    gemm_kernels
    gemm_packing
    gemm_plan)
# Every backend of quantize_weights must choose the same integers.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/quantize_weights_cpu.cc PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
