set(CULEBRA_OP_SOURCES ${CULEBRA_OP_SOURCES}
  native/abi/moe.cc
  ${CMAKE_CURRENT_LIST_DIR}/moe_mlp.cc
  ${CMAKE_CURRENT_LIST_DIR}/moe_mlp_cpu.cc
  ${CMAKE_CURRENT_LIST_DIR}/moe_route.cc
  ${CMAKE_CURRENT_LIST_DIR}/moe_route_cpu.cc)
set(CULEBRA_NATIVE_TESTS ${CULEBRA_NATIVE_TESTS} ${CMAKE_CURRENT_LIST_DIR}/../../../tests/native/moe_test.cc)
