// nsa_compress: its plan and its columns. Also what nsa_attention's mean dialect averages keys and values with.
#pragma once
#include "culebra/sparse_attention.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {

// Compressed rows that L tokens give.
CUL_NUMERIC int64_t compressed_rows(int64_t tokens, int64_t l, int64_t d) {
  return tokens < l ? 0 : (tokens - l) / d + 1;
}

// Channels that the kernel for f32 weights takes.
inline constexpr int kMaxCompressDim = 256;

struct NsaCompressParams {
  static constexpr int64_t kItemRows = 16;  // cpu: rows of y that share a pass over w

  DType dtype = DType::f32;
  int64_t sequences = 0, heads = 0, dim = 0;
  int64_t rows = 0, out_rows = 0;  // T, Tc
  TokenRows x, y;
  TokenRows w;  // [Hkv,l,D,D]: data[head head + i row + in w_in + out]
  int64_t w_in = 0;
  TokenRows pe;  // [Hkv,l,D]: data[head head + i row + d]
  const int32_t* cu_seqlens = nullptr;
  int32_t* cu_out = nullptr;
  int64_t l = 0, d = 0;
  bool linear = false;
  bool aligned = false;  // every row begins and ends at a multiple of 16 bytes
  bool validate = false;

  CUL_NUMERIC int64_t given_rows() const {
    int64_t total = 0;
    for (int64_t b = 0; b < sequences; ++b) total += compressed_rows(cu_seqlens[b + 1] - cu_seqlens[b], l, d);
    return total;
  }
  // Sequences, then the room in y (abi/indices.h).
  int64_t index_items() const { return sequences + 1; }
  CUL_NUMERIC bool valid(int64_t i) const { return i < sequences ? valid_starts(cu_seqlens, i, rows) : given_rows() <= out_rows; }
  std::string invalid_text(int64_t i) const;
};

NsaCompressParams check_nsa_compress(const Call& call, const cul_nsa_compress_args& args);
CUL_DECLARE_COLUMNS(nsa_compress, NsaCompressParams)

// l and d of every nsa op: d divides l.
void check_compression(const Call& call, int32_t l, int32_t d);

}  // namespace culebra
