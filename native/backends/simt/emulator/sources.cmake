# The emulator. Include it, add CULEBRA_SIMT_EMULATOR_SOURCES to the library (plain flags of the project), and compile every file
# that includes native/device with CULEBRA_SIMT_KERNEL_OPTIONS: all such files of one binary alike.
#
# CULEBRA_SIMT_HOOKS: kernels report every plain load and store, which finds races, uninitialised reads and accesses out of bounds
# at three to five times the run time. The compiler's ThreadSanitizer instrumentation is used without its runtime: do not combine it
# with another sanitizer, and never pass -fsanitize=thread to the linker.
option(CULEBRA_SIMT_HOOKS "Check every load and store of emulated kernels" OFF)

set(_emulator ${CMAKE_CURRENT_LIST_DIR})
set(CULEBRA_SIMT_EMULATOR_SOURCES
  ${_emulator}/async_copy.cc
  ${_emulator}/barrier.cc
  ${_emulator}/block.cc
  ${_emulator}/config.cc
  ${_emulator}/fiber.cc
  ${_emulator}/global_registry.cc
  ${_emulator}/grid.cc
  ${_emulator}/matrix.cc
  ${_emulator}/memory.cc
  ${_emulator}/report.cc
  ${_emulator}/shadow.cc
  ${_emulator}/site.cc
  ${_emulator}/warp.cc)

# Kernels reinterpret registers as other types, as the device allows. g++ takes a .cu file as C++ with -x c++.
set(CULEBRA_SIMT_KERNEL_OPTIONS -fno-strict-aliasing -Wno-unknown-pragmas)
if(CULEBRA_SIMT_HOOKS)
  list(APPEND CULEBRA_SIMT_EMULATOR_SOURCES ${_emulator}/hooks.cc)
  list(APPEND CULEBRA_SIMT_KERNEL_OPTIONS -g1 -fsanitize=thread --param=tsan-instrument-func-entry-exit=0
    -fsanitize=alignment,bounds)
else()
  list(APPEND CULEBRA_SIMT_EMULATOR_SOURCES ${_emulator}/hooks_absent.cc)
endif()

# libbacktrace comes with GCC: with it, findings name file and line of plain loads and stores; without it, module and offset.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LIBRARIES backtrace)
check_cxx_source_compiles("#include <backtrace.h>
  int main() { return backtrace_create_state(nullptr, 1, nullptr, nullptr) == nullptr; }" CULEBRA_HAS_BACKTRACE)
unset(CMAKE_REQUIRED_LIBRARIES)
set(CULEBRA_SIMT_LIBRARIES ${CMAKE_DL_LIBS})
if(CULEBRA_HAS_BACKTRACE)
  list(APPEND CULEBRA_SIMT_LIBRARIES backtrace)
  set_source_files_properties(${_emulator}/site.cc PROPERTIES COMPILE_DEFINITIONS CULEBRA_SIMT_BACKTRACE=1)
endif()
