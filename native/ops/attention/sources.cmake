set(CULEBRA_OP_SOURCES ${CULEBRA_OP_SOURCES}
  native/abi/attention.cc
  ${CMAKE_CURRENT_LIST_DIR}/attention.cc
  ${CMAKE_CURRENT_LIST_DIR}/attention_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/cache.cc
  ${CMAKE_CURRENT_LIST_DIR}/paged_append.cc
  ${CMAKE_CURRENT_LIST_DIR}/paged_append_cpu.cc)
set(CULEBRA_NATIVE_TESTS ${CULEBRA_NATIVE_TESTS} ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/attention_test.cc)
