#include "ops/kv_cache/kv_page_stats.h"

namespace culebra {

PageStatsParams check_kv_page_stats(const Call& call, const cul_kv_page_stats_args& args) {
  const View cache = call.required(args.k_cache, "k_cache"), page_table = call.required(args.page_table, "page_table"),
             first_token = call.required(args.first_token, "first_token"),
             kv_len = call.required(args.kv_len, "kv_len"), page_min = call.required(args.page_min, "page_min"),
             page_max = call.required(args.page_max, "page_max");
  call.rank(cache, 4, "[P,page,Hkv,D]");
  call.rank(page_table, 2, "[B,maxP]");
  call.dtype(cache, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&page_min, &page_max}) call.same_dtype(*x, cache);
  for (const View* x : {&page_table, &first_token, &kv_len}) call.dtype(*x, {DType::i32});
  if (cache[1] < 1) call.refuse(CUL_SHAPE, "k_cache is %s; a page must hold a token", shape_text(cache).c_str());
  for (const View* x : {&first_token, &kv_len}) {
    call.shape(*x, {page_table[0]}, "[B]");
    call.compact(*x);
  }
  for (const View* x : {&page_min, &page_max}) {
    call.shape(*x, {cache[0], cache[2], cache[3]}, "[P,Hkv,D], as k_cache's");
    call.distinct(*x);
    for (const View* in : {&cache, &page_table, &first_token, &kv_len}) call.disjoint(*x, *in);
  }
  call.disjoint(page_min, page_max);

  PageStatsParams p;
  p.dtype = cache.dtype;
  p.sequences = page_table[0];
  p.pages = cache[0];
  p.page_size = cache[1];
  p.heads = cache[2];
  p.dim = cache[3];
  p.table_pages = page_table[1];
  p.cache = head_rows(cache);
  p.page_min = head_rows(page_min);
  p.page_max = head_rows(page_max);
  p.page_table = page_table.as<const int32_t>();
  p.page_table_stride = page_table.stride_of(0);
  p.first_token = first_token.as<const int32_t>();
  p.kv_len = kv_len.as<const int32_t>();
  p.validate = call.validate();
  p.aligned = p.dim * static_cast<int64_t>(size_of(p.dtype)) % 16 == 0 && rows_aligned(cache) &&
              rows_aligned(page_min) && rows_aligned(page_max);
  return p;
}

std::string PageStatsParams::invalid_text(int64_t b) const {
  return format(
      "sequence %lld has first_token %d and kv_len %d; they must be 0 or more, kv_len at most %lld, and the pages of "
      "page_table between them -1 to %lld",
      ll(b), first_token[b], kv_len[b], ll(table_pages * page_size), ll(pages - 1));
}

}  // namespace culebra
