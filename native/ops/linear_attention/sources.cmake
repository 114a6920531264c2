set(CULEBRA_OP_SOURCES ${CULEBRA_OP_SOURCES}
  native/abi/linear_attention.cc
  ${CMAKE_CURRENT_LIST_DIR}/causal_conv1d.cc
  ${CMAKE_CURRENT_LIST_DIR}/causal_conv1d_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/gated_delta_rule.cc
  ${CMAKE_CURRENT_LIST_DIR}/gated_delta_rule_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/gated_rms_norm.cc
  ${CMAKE_CURRENT_LIST_DIR}/gated_rms_norm_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/sequences.cc)
set(CULEBRA_NATIVE_TESTS ${CULEBRA_NATIVE_TESTS} ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/linear_attention_test.cc)
