// Feature maps of linear_attention: q and k, K wide, become F wide before they meet.
#pragma once
#include <cstdint>

namespace culebra {

// As the C ABI numbers them.
enum class FeatureMap : int32_t { none, elu1, relu, squared_relu, hedgehog, taylor2 };

constexpr int64_t feature_dim(FeatureMap map, int64_t key_dim) {
  switch (map) {
    case FeatureMap::hedgehog: return 2 * key_dim;
    case FeatureMap::taylor2: return 1 + key_dim + key_dim * (key_dim + 1) / 2;
    default: return key_dim;
  }
}

}  // namespace culebra
