// Rows of a table by id.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/rows.h"

namespace culebra {

struct EmbeddingParams {
  int element_bytes;  // rows are copied as bytes
  bool aligned, wide_ids, validate;
  int64_t tokens, columns, vocabulary;
  Rows table, y;
  const void* ids;  // i64 where wide_ids, else i32

  CUL_NUMERIC int64_t id(int64_t token) const {
    return wide_ids ? static_cast<const int64_t*>(ids)[token] : static_cast<const int32_t*>(ids)[token];
  }
  // Any other id gives zeros.
  CUL_NUMERIC bool in_table(int64_t id) const { return id >= 0 && id < vocabulary; }

  // Ids (abi/indices.h).
  int64_t index_items() const { return tokens; }
  CUL_NUMERIC bool valid(int64_t t) const { return id(t) == -1 || in_table(id(t)); }
  std::string invalid_text(int64_t t) const;
};

EmbeddingParams check_embedding(const Call& call, const cul_embedding_args& args);

CUL_DECLARE_COLUMNS(embedding, EmbeddingParams)

}  // namespace culebra
