culebra_family(sparse_attention
  SOURCES
  KERNELS
  TESTS)
