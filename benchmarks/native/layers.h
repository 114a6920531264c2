// What is measured: the layers, from benchmarks/layers.txt, and the numbers of tokens.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct Layer {
  std::string model, name;
  int64_t n, k;
};

// In the file's order; the first is the one that the targets are stated for.
std::vector<Layer> read_layers();

inline const std::vector<int64_t> kTokens{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096};
inline const std::vector<int64_t> kFewTokens{1, 8, 512};

}  // namespace bench
