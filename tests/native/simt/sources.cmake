# The emulator's own tests, twice: with the hooks, and without them as the sanitizer builds have it. Kernels on the simt backend
# are tested with their operators.
set(_here ${CMAKE_CURRENT_LIST_DIR})
cmake_path(SET _native NORMALIZE ${_here}/../../../native)
set(_tests
  ${_here}/concurrent_test.cc
  ${_here}/correct_kernels_test.cc
  ${_here}/grid_test.cc
  ${_here}/hopper_faults_test.cc
  ${_here}/hopper_kernels_test.cc
  ${_here}/matrix_test.cc
  ${_here}/numeric_test.cc
  ${_here}/planted_faults_test.cc
  ${_here}/sparse_matrix_test.cc
  ${_here}/warp_test.cc)

add_library(culebra_simt_emulator OBJECT ${CULEBRA_SIMT_EMULATOR_CORE})
target_link_libraries(culebra_simt_emulator PUBLIC Threads::Threads)
target_include_directories(culebra_simt_emulator PUBLIC ${_native} ${_native}/include)
target_compile_options(culebra_simt_emulator PRIVATE -Wall -Wextra -Werror)
if(CULEBRA_SANITIZE)
  string(REPLACE ";" "," _sanitizers "${CULEBRA_SANITIZE}")
  target_compile_options(culebra_simt_emulator PUBLIC -fsanitize=${_sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(culebra_simt_emulator PUBLIC -fsanitize=${_sanitizers})
endif()

function(culebra_simt_test name options)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE culebra_simt_emulator GTest::gtest GTest::gtest_main)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Werror ${options})
  add_test(NAME ${name} COMMAND ${name})
endfunction()

culebra_simt_test(culebra_simt_tests "${CULEBRA_SIMT_PLAIN_OPTIONS}" ${_tests} ${CULEBRA_SIMT_HOOKS_ABSENT})
if(NOT CULEBRA_SANITIZE)
  add_library(culebra_simt_hooks OBJECT ${CULEBRA_SIMT_HOOKS_PRESENT})  # never instrumented themselves
  target_link_libraries(culebra_simt_hooks PRIVATE culebra_simt_emulator)
  culebra_simt_test(culebra_simt_checked_tests "${CULEBRA_SIMT_PLAIN_OPTIONS};${CULEBRA_SIMT_HOOK_OPTIONS}" ${_tests} ${_here}/checked_access_test.cc
                    ${_here}/hopper_checked_faults_test.cc)
  target_link_libraries(culebra_simt_checked_tests PRIVATE culebra_simt_hooks)
endif()

include(${_here}/../../fidelity/sources.cmake)
