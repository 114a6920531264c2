#include "ops/glue/embedding.h"

namespace culebra {

EmbeddingParams check_embedding(const Call& call, const cul_embedding_args& args) {
  const View table = call.required(args.table, "table"), ids = call.required(args.ids, "ids"),
             y = call.required(args.y, "y");
  call.rank(table, 2, "[V,D]");
  call.rank(ids, 1, "[T]");
  call.rank(y, 2, "[T,D]");
  call.dtype(table, {DType::f32, DType::f16, DType::bf16});
  call.dtype(ids, {DType::i32, DType::i64});
  call.same_dtype(y, table);
  if (y[0] != ids[0] || y[1] != table[1])
    call.refuse(CUL_SHAPE, "y is %s; with ids %s and table %s it must be [%lld, %lld]", shape_text(y).c_str(),
                shape_text(ids).c_str(), shape_text(table).c_str(), static_cast<long long>(ids[0]),
                static_cast<long long>(table[1]));
  call.compact(ids);
  call.distinct(y);
  call.disjoint(y, table);
  call.disjoint(y, ids);
  return {static_cast<int>(size_of(table.dtype)), glue::aligned_rows({&table, &y}), ids.dtype == DType::i64,
          call.validate(), ids[0], table[1], table[0], glue::rows_of(table), glue::rows_of(y), ids.data};
}

std::string EmbeddingParams::invalid_text(int64_t t) const {
  return format("ids[%lld] is %lld; the table has rows 0 to %lld (and -1 is padding)", static_cast<long long>(t),
                static_cast<long long>(id(t)), static_cast<long long>(vocabulary - 1));
}

}  // namespace culebra
