# Native tests beside those of the operator families (native/ops/*/sources.cmake adds these).
list(APPEND CULEBRA_NATIVE_TESTS
  ${CMAKE_CURRENT_LIST_DIR}/call_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/module_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/runtime_test.cc
  ${CMAKE_CURRENT_LIST_DIR}/thread_pool_test.cc)
