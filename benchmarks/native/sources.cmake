# Native benchmarks: they time the library through its C ABI, as every caller reaches it.
add_executable(bench_gemm
  ${CMAKE_CURRENT_LIST_DIR}/bench_gemm.cc
  ${CMAKE_CURRENT_LIST_DIR}/openblas_peer.cc
  ${CMAKE_CURRENT_LIST_DIR}/timing.cc)
target_include_directories(bench_gemm PRIVATE native native/include)
target_compile_options(bench_gemm PRIVATE ${warnings} -O3)
target_link_libraries(bench_gemm PRIVATE culebra Threads::Threads ${CMAKE_DL_LIBS})
