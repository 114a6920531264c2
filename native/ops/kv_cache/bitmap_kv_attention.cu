#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/few_rows.cuh"
#include "ops/attention/tile/merge.cuh"
#include "ops/kv_cache/bitmap_kv_attention.h"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

// One side, keys or values: compressed pages, then a dense tail.
struct BitmapSide {
  ByteRows values, bits, tail;
};

// A compressed token's place is its page and row, a tail token's its row alone; neither is null.
CUL_DEVICE_FN const void* place_in_page(int page, int row) {
  return reinterpret_cast<const void*>(uint64_t{1} << 63 | static_cast<uint64_t>(page) << 32 | static_cast<uint32_t>(row));
}

// A tile of rows over a sequence's compressed tokens and its tail (attention/tile/tour.cuh).
struct BitmapTour : IntervalTour {
  BitmapSide k, v;
  const int32_t* table;  // the sequence's
  int32_t page_size, cached;
  bool aligned;

  CUL_DEVICE_FN KeyPlace place(int n) const {
    const void* at = reinterpret_cast<const void*>(static_cast<uint64_t>(static_cast<uint32_t>(n - cached)) + 1);
    if (n < cached) {
      const int page = table[n / page_size];
      at = page < 0 ? nullptr : place_in_page(page, n % page_size);
    }
    return {at, at};
  }
  template <class T>
  CUL_DEVICE_FN Eight<T> chunk(const BitmapSide& side, const void* at, int c) const {
    const auto place = reinterpret_cast<uint64_t>(at);
    Eight<T> to{};
    if (place == 0) return to;
    if (!(place >> 63)) {
      const T* const row = reinterpret_cast<const T*>(side.tail.at(sequence, static_cast<int64_t>(place) - 1, kv_head)) + c;
      if constexpr (sizeof(T) == 2) {
        if (aligned) return load_vector<8>(row);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) to[i] = row[i];
      return to;
    }
    const int64_t page = static_cast<int64_t>(place << 1 >> 33), row = static_cast<uint32_t>(place);
    const auto* const words = reinterpret_cast<const uint64_t*>(side.bits.at(page, row, kv_head));
    const T* from = reinterpret_cast<const T*>(side.values.at(page, row, kv_head));
    for (int w = 0; w < c / 64; ++w) from += __popcll(words[w]);
    const uint64_t word = words[c / 64];
    from += __popcll(word & ((uint64_t{1} << c % 64) - 1));
    const auto kept = static_cast<uint32_t>(word >> c % 64 & 0xffu);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (kept >> i & 1) to[i] = from[__popc(kept & ((1u << i) - 1))];
    return to;
  }
  template <class T>
  CUL_DEVICE_FN Eight<T> k_chunk(const KeyPlace& at, int, int c) const {
    return chunk<T>(k, at.k, c);
  }
  template <class T>
  CUL_DEVICE_FN Eight<T> v_chunk(const KeyPlace& at, int, int c) const {
    return chunk<T>(v, at.v, c);
  }
};

struct BitmapTours {
  IntervalRows rows;
  BitmapSide k, v;
  const int32_t* page_table;
  const int32_t* kv_len;
  const int32_t* tail_len;
  int64_t table_stride, cache_rows, tail_rows;
  int32_t page_size, kv_heads, queries, tile_rows, row_tiles;
  bool aligned;

  CUL_DEVICE_FN BitmapTour tour(int64_t index) const {
    const int tile = static_cast<int>(index % row_tiles), kv_head = static_cast<int>(index / row_tiles % kv_heads),
              b = static_cast<int>(index / row_tiles / kv_heads);
    // Lengths beyond the tensors are the validator's.
    const int cached = static_cast<int>(min(int64_t{kv_len[b]}, cache_rows)),
              tail = static_cast<int>(min(int64_t{tail_len[b]}, tail_rows));
    return {IntervalTour(rows, b, kv_head, 0, queries, cached + tail, tile * tile_rows, tile_rows, int64_t{b} * queries),
            k,
            v,
            page_table + b * table_stride,
            page_size,
            cached,
            aligned};
  }
};

ByteRows byte_rows(const HeadRows& x, DType dtype) {
  const auto size = static_cast<int64_t>(size_of(dtype));
  ByteRows rows;
  rows.data = static_cast<char*>(x.data);
  rows.batch = x.outer * size;
  rows.row = x.row * size;
  rows.head = x.head * size;
  return rows;
}

template <class T>
void run_tiles(const Problem& problem, const BitmapTours& tours, int64_t tiles, NativeStream stream) {
  if (problem.dim > 128)
    launch_few_rows<FewRowsTile<T, 256, 1>>(problem, tours, tiles, stream);
  else if (tours.tile_rows == 8)
    launch_few_rows<FewRowsTile<T, 128, 1>>(problem, tours, tiles, stream);
  else
    launch_few_rows<FewRowsTile<T, 128, 2>>(problem, tours, tiles, stream);
}

template <class T>
void run(const BitmapAttentionParams& p, const Problem& problem, const BitmapTours& tours, NativeStream stream) {
  const int64_t tiles = p.sequences * p.kv_heads * tours.row_tiles;
  if constexpr (sizeof(T) == 2)
    run_tiles<T>(problem, tours, tiles, stream);
  else
    launch_f32<F32Tile<256, 2>>(problem, tours, tiles, stream);
  if (problem.partial_o) merge_partial<T>(problem, p.queries, p.query_heads, tours.rows.o, tours.rows.lse, nullptr, stream);
}

}  // namespace

void bitmap_kv_attention(const BitmapAttentionParams& p, NativeStream stream) {
  if (p.validate) validate("bitmap_kv_attention", p, stream);
  if (p.sequences == 0 || p.queries == 0) return;
  Problem problem{};
  problem.dim = problem.value_dim = static_cast<int32_t>(p.dim);
  problem.scale = p.scale;
  problem.aligned = p.aligned;
  problem.anywhere = p.q.data;
  problem.splits = p.plan.splits;
  problem.split_keys = p.plan.split_tokens;
  if (p.plan.partial) {
    problem.partial_rows = p.sequences * p.queries * p.query_heads;
    problem.partial_o = static_cast<float*>(p.workspace);
    problem.partial_lse = problem.partial_o + p.plan.splits * problem.partial_rows * p.dim;
  }
  BitmapTours tours{};
  tours.rows.q = byte_rows(p.q, p.dtype);
  tours.rows.o = byte_rows(p.o, p.dtype);
  tours.rows.lse = byte_rows(p.lse, DType::f32);
  tours.rows.group = static_cast<int32_t>(p.group());
  tours.rows.query_heads = static_cast<int32_t>(p.query_heads);
  tours.rows.left = -1;
  tours.k = {byte_rows(p.k_values, p.dtype), byte_rows(p.k_bits, DType::i64), byte_rows(p.k_tail, p.dtype)};
  tours.v = {byte_rows(p.v_values, p.dtype), byte_rows(p.v_bits, DType::i64), byte_rows(p.v_tail, p.dtype)};
  tours.page_table = p.page_table;
  tours.kv_len = p.kv_len;
  tours.tail_len = p.tail_len;
  tours.table_stride = p.page_table_stride;
  tours.cache_rows = p.table_pages * p.page_size;
  tours.tail_rows = p.tail_rows;
  tours.page_size = static_cast<int32_t>(p.page_size);
  tours.kv_heads = static_cast<int32_t>(p.kv_heads);
  tours.queries = static_cast<int32_t>(p.queries);
  tours.tile_rows = p.plan.tile_rows;
  tours.row_tiles = static_cast<int32_t>((p.queries * p.group() + p.plan.tile_rows - 1) / p.plan.tile_rows);
  tours.aligned = p.aligned;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, problem, tours, stream);
    case DType::bf16: return run<bfloat16_t>(p, problem, tours, stream);
    default: return run<float>(p, problem, tours, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS
