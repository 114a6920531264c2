#include "layers.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace bench {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(' ');
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(' ') + 1 - first);
}

}  // namespace

std::vector<Layer> read_layers() {
  std::vector<Layer> layers;
  std::ifstream file(CULEBRA_BENCHMARK_LAYERS);
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string model, name, n, k;
    std::getline(fields, model, '|');
    std::getline(fields, name, '|');
    std::getline(fields, n, '|');
    std::getline(fields, k);
    layers.push_back({trimmed(model), trimmed(name), std::atoll(n.c_str()), std::atoll(k.c_str())});
  }
  if (layers.empty()) {
    std::fprintf(stderr, "bench_gemm: no layers in %s\n", CULEBRA_BENCHMARK_LAYERS);
    std::exit(1);
  }
  return layers;
}

}  // namespace bench
