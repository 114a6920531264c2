// The peers on one layer: OpenBLAS's f32 product and ggml's 4-bit ones, on weights of the same shape that rotate like ours.
#pragma once
#include <memory>
#include <vector>

#include "ggml_peer.h"
#include "layers.h"
#include "openblas_peer.h"
#include "timing.h"

namespace bench {

// Weights rotate over this much memory, so that no call finds its own in a cache.
inline constexpr int64_t kRotatedBytes = int64_t{256} << 20;

struct PeerLibraries {
  explicit PeerLibraries(int threads) : openblas(threads), ggml(threads) {}
  OpenBlas openblas;
  Ggml ggml;
};

class LayerPeers {
 public:
  LayerPeers(const PeerLibraries& libraries, const Layer& layer);

  // Adds the peers with m rows of a; their results are checked first. They stay valid until the next call.
  void add(std::vector<Contender>& contenders, int64_t m, bool int4);

 private:
  void check(const char* peer, int64_t m, const float* c, double bound) const;

  const PeerLibraries& libraries_;
  const Layer& layer_;
  std::vector<float> base_;                  // the first rows of the weights, of which the others are repetitions
  std::vector<std::vector<float>> dense_;    // [n, k]
  std::vector<std::unique_ptr<GgmlWeights>> int4_;
  std::vector<float> a_, c_;
  std::vector<std::unique_ptr<GgmlProduct>> products_;
};

}  // namespace bench
