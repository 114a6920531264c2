culebra_family(moe
  SOURCES
    moe_mlp
    moe_mlp_cpu
    moe_route
    moe_route_cpu
  TESTS
    moe)
