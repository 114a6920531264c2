# The emulator. A library adds CULEBRA_SIMT_EMULATOR_SOURCES, with the project's flags, and compiles every file that includes
# native/device with CULEBRA_SIMT_KERNEL_OPTIONS: all such files of one binary alike.
#
# CULEBRA_SIMT_HOOKS: kernels report every plain load and store, which finds races, uninitialised reads and accesses out of bounds
# at two to four times the run time. The compiler's ThreadSanitizer instrumentation is used without its runtime: it does not go
# together with another sanitizer, and -fsanitize=thread must never reach the linker.
option(CULEBRA_SIMT_HOOKS "Check every load and store of emulated kernels" OFF)
if(CULEBRA_SIMT_HOOKS AND CULEBRA_SANITIZE)
  message(FATAL_ERROR "CULEBRA_SIMT_HOOKS instruments kernels as a sanitizer does: switch it off with CULEBRA_SANITIZE")
endif()

set(CULEBRA_SIMT_EMULATOR_CORE "")
foreach(_file async_copy barrier block cluster config copy_engine fiber global_registry grid matrix mbarrier memory report shadow site sparse_matrix warp
              wgmma)
  list(APPEND CULEBRA_SIMT_EMULATOR_CORE ${CMAKE_CURRENT_LIST_DIR}/${_file}.cc)
endforeach()
set(CULEBRA_SIMT_HOOKS_PRESENT ${CMAKE_CURRENT_LIST_DIR}/hooks.cc)
set(CULEBRA_SIMT_HOOKS_ABSENT ${CMAKE_CURRENT_LIST_DIR}/hooks_absent.cc)

# Kernels reinterpret registers as other types, as a device allows, and unroll loops in nvcc's words. -g1: findings name lines.
set(CULEBRA_SIMT_PLAIN_OPTIONS -O2 -fno-strict-aliasing -Wno-unknown-pragmas -Wno-psabi)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND CULEBRA_SIMT_PLAIN_OPTIONS -mtls-dialect=gnu2)  # the current thread's identity in a few instructions
endif()
set(CULEBRA_SIMT_HOOK_OPTIONS -g1 -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 -fsanitize=alignment,bounds)

set(CULEBRA_SIMT_EMULATOR_SOURCES ${CULEBRA_SIMT_EMULATOR_CORE})
set(CULEBRA_SIMT_KERNEL_OPTIONS ${CULEBRA_SIMT_PLAIN_OPTIONS})
if(CULEBRA_SIMT_HOOKS)
  list(APPEND CULEBRA_SIMT_EMULATOR_SOURCES ${CULEBRA_SIMT_HOOKS_PRESENT})
  list(APPEND CULEBRA_SIMT_KERNEL_OPTIONS ${CULEBRA_SIMT_HOOK_OPTIONS})
else()
  list(APPEND CULEBRA_SIMT_EMULATOR_SOURCES ${CULEBRA_SIMT_HOOKS_ABSENT})
endif()

# libbacktrace comes with GCC: with it, findings name file and line of plain loads and stores; without it, module and offset.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LIBRARIES backtrace)
check_cxx_source_compiles("#include <backtrace.h>
  int main() { return backtrace_create_state(nullptr, 1, nullptr, nullptr) == nullptr; }" CULEBRA_HAS_BACKTRACE)
unset(CMAKE_REQUIRED_LIBRARIES)
link_libraries(${CMAKE_DL_LIBS})  # whatever links the emulator is defined after this file
if(CULEBRA_HAS_BACKTRACE)
  link_libraries(backtrace)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/site.cc PROPERTIES COMPILE_DEFINITIONS CULEBRA_SIMT_BACKTRACE=1)
endif()
