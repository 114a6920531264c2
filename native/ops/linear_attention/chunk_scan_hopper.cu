// The second kernel of the chunkwise form for compute capability 9.0: wgmma on images that the copy engine brings.
#include "device/bulk_copy.h"
#include "device/mbarrier.h"
#include "device/wgmma.h"
#include "ops/linear_attention/chunk_item.cuh"
#include "ops/linear_attention/chunk_run.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kThreads = 128, kRows = 64, kStages = 2;
constexpr int kValuePitch = kRows + 8;
constexpr int kValueBytes = kChunk * kValuePitch * 2;

// A stage: a record as it lies in the workspace, behind it the q/k head's; then v of each stage, then the barriers.
CUL_NUMERIC int64_t stage_bytes(const ChunkLayout& l) { return l.triangles_end() + l.operand_bytes(); }
CUL_NUMERIC int64_t values_at(const ChunkLayout& l) { return kStages * stage_bytes(l); }
CUL_NUMERIC int64_t barriers_at(const ChunkLayout& l) { return values_at(l) + kStages * kValueBytes; }
CUL_NUMERIC int64_t shared_bytes(const ChunkLayout& l) { return barriers_at(l) + 2 * kStages * 8; }

#if CUL_HAS_SM90A

// By one thread.
CUL_DEVICE_FN void fetch_record(const Params& p, const ScanRun& run, const ScanItem& item, int64_t chunk, uint32_t stage, uint32_t landed) {
  const ChunkLayout& l = run.layout;
  const int64_t slot = first_slot(p.sequences, item.n, kChunk) + chunk;
  const unsigned char* const record = run.records + (slot * p.value_heads + item.head) * l.record_bytes();
  const auto factors = static_cast<uint32_t>(l.factor_bytes()), rest = static_cast<uint32_t>(l.record_bytes() - l.scores_at());
  const auto keys = static_cast<uint32_t>(l.key_record_bytes());
  mbarrier_arrive_expect_bytes(landed, factors + rest + keys);
  bulk_copy(stage, record, factors, landed);
  bulk_copy(stage + static_cast<uint32_t>(l.scores_at()), record + l.scores_at(), rest, landed);
  if (keys > 0) {
    const int64_t key_head = divide(item.head, divide(p.value_heads, p.key_heads));
    bulk_copy(stage + static_cast<uint32_t>(l.triangles_end()), run.records + l.key_records_at + (slot * p.key_heads + key_head) * keys, keys, landed);
  }
}

// v of one warp's 16 columns.
template <class T>
CUL_DEVICE_FN void fetch_values(const Params& p, const ScanRun& run, const ScanItem& item, int64_t chunk, T* tile, int warp, int lane) {
  const T* const rows = head_row<const T>(p.v, item.seq.batch, item.seq.begin + chunk * kChunk, item.head) + item.first_row + 16 * warp;
  const int count = item.count(chunk), column = lane % 2 * 8;
  const bool present = 16 * warp + column < item.columns(p);
#pragma unroll
  for (int row = lane / 2; row < kChunk; row += 16)
    copy_piece(tile + row * kValuePitch + column, rows + row * p.v.token + column, row < count && present, run.v_aligned);
  cp_async_commit();
}

// d (+)= a tile^T, tile [N][k steps of 16], 64 k in each image.
template <class T, int N, int kSteps>
CUL_DEVICE_FN void multiply(float (&d)[N / 2], const uint32_t (&a)[kSteps][4], uint32_t tile, bool accumulate) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
    wgmma<T, N>(d, a[step], wgmma_advance(wgmma_descriptor(tile + static_cast<uint32_t>(step / 4 * (kChunk * 128))), step % 4 * 32),
                accumulate || step > 0);
}

template <class T>
CUL_DEVICE_FN void operand_of(const float* d, uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = pack2<T>(d[2 * i], d[2 * i + 1]);
}

#endif

// Computes: what scan_kernel (chunk_scan.cu) computes
// Shapes:   the records of the preparing kernels as images; K <= kKeys, 64 rows of the state a block
// Layouts:  as scan_kernel's
// Tiles:    a warpgroup has 64 rows of S^T in registers, which as operand A meet images of k, q, M, P and k^T: m64n64k16, and m64nKk16
// Shared:   2 stages of up to 74 KB, brought as they lie in the workspace by 2 or 3 bulk copies; v [64][72] beside each
// Order:    k order of wgmma
// Numerics: as scan_kernel's
// Needs:    sm_90a; one block an SM. A warp's lane 0 asks for the next chunk when all warps have left the one before this
// Source:   as scan_kernel's
template <class T, int kKeys>
__global__ void __launch_bounds__(kThreads, 1) scan_hopper_kernel(Params p, ScanRun run) {
#if CUL_HAS_SM90A
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  constexpr int kSteps = kKeys / 16;
  const ScanItem item(p, run);
  if (item.nothing) return;
  if (item.seq.skipped) return clear_sequence<T>(p, item, kRows);
  const ChunkLayout& layout = run.layout;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const uint32_t stages = shared_address(shared), full = stages + static_cast<uint32_t>(barriers_at(layout)), empty = full + 8 * kStages;
  const auto stage_size = static_cast<uint32_t>(stage_bytes(layout));
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(full + 8 * i, 1);
      mbarrier_init(empty + 8 * i, kThreads / 32);
    }
    mbarrier_init_fence();
  }
  __syncthreads();

  const int64_t row = item.first_row + 16 * warp + lane / 4;
  float start[kKeys / 8][4], s[kKeys / 2];
  item.load<kKeys>(p, run, row, lane, start);
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) s[i] = start[i / 4][i % 4];

  const auto values_of = [&](int turn) {
    return reinterpret_cast<T*>(shared + values_at(layout) + turn % kStages * kValueBytes) + 16 * warp;
  };
  const auto fetch = [&](int turn) {  // of this block's chunks
    if (thread == 0) {
      const uint32_t stage = static_cast<uint32_t>(turn % kStages);
      if (turn >= kStages) mbarrier_wait(empty + 8 * stage, static_cast<uint32_t>(turn / kStages - 1) & 1u);
      fetch_record(p, run, item, item.begin_chunk + turn, stages + stage * stage_size, full + 8 * stage);
    }
    fetch_values(p, run, item, item.begin_chunk + turn, values_of(turn), warp, lane);
  };
  const int turns = static_cast<int>(item.end_chunk - item.begin_chunk);
  fetch(0);
  for (int turn = 0; turn < turns; ++turn) {
    const uint32_t slot = static_cast<uint32_t>(turn % kStages), stage = stages + slot * stage_size;
    const float* const factors = reinterpret_cast<const float*>(shared + slot * stage_size) + lane % 4 * 2;
    const auto part = [&](int64_t at) { return stage + static_cast<uint32_t>(at); };
    const uint32_t operands = part(layout.triangles_end() - layout.operands_at());
    if (turn + 1 < turns) {
      fetch(turn + 1);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncwarp();
    T* const v = values_of(turn);
    uint32_t values[4][4];
#pragma unroll
    for (int step = 0; step < 4; ++step)
      ldmatrix_x4_trans(values[step], shared_address(v + (16 * step + lane / 16 * 8 + lane % 8) * kValuePitch + lane / 8 % 2 * 8));
    mbarrier_wait(full + 8 * slot, static_cast<uint32_t>(turn / kStages) & 1u);

    float o[32], r[32];
    {
      uint32_t state[kSteps][4];
#pragma unroll
      for (int step = 0; step < kSteps; ++step) operand_of<T>(s + 8 * step, state[step]);
      wgmma_fence();
      if (layout.delta) multiply<T, 64, kSteps>(r, state, operands + static_cast<uint32_t>(layout.keys_at()), false);
      multiply<T, 64, kSteps>(o, state, operands + static_cast<uint32_t>(layout.queries_at()), false);
      wgmma_commit();
      wgmma_wait<0>();
    }
    if (layout.delta) {
      uint32_t x[4][4];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float2 f = *reinterpret_cast<const float2*>(factors + 8 * j);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const uint32_t pair = values[j / 2][j % 2 * 2 + i];
          r[4 * j + 2 * i] = fmaf(-f.x, r[4 * j + 2 * i], low_float<T>(pair));
          r[4 * j + 2 * i + 1] = fmaf(-f.y, r[4 * j + 2 * i + 1], high_float<T>(pair));
        }
      }
#pragma unroll
      for (int step = 0; step < 4; ++step) operand_of<T>(r + 8 * step, x[step]);
      wgmma_fence();
      multiply<T, 64, 4>(r, x, part(layout.inverse_at(0)), false);
      if (layout.split) multiply<T, 64, 4>(r, x, part(layout.inverse_at(1)), true);
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int step = 0; step < 4; ++step) operand_of<T>(r + 8 * step, values[step]);
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        r[2 * i] = low_float<T>(values[i / 4][i % 4]);
        r[2 * i + 1] = high_float<T>(values[i / 4][i % 4]);
      }
    }

    const float* const decay = reinterpret_cast<const float*>(shared + slot * stage_size + layout.decay_at()) + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 f = *reinterpret_cast<const float2*>(factors + kChunk + 8 * j);
      const float2 g = *reinterpret_cast<const float2*>(factors + 2 * kChunk + 8 * j);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        o[4 * j + i] *= i % 2 ? f.y : f.x;
        r[4 * j + i] *= i % 2 ? g.y : g.x;
      }
    }
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      const float2 e = *reinterpret_cast<const float2*>(decay + 8 * j);
#pragma unroll
      for (int i = 0; i < 4; ++i) s[4 * j + i] *= i % 2 ? e.y : e.x;
    }
    uint32_t gained[4][4];
#pragma unroll
    for (int step = 0; step < 4; ++step) operand_of<T>(r + 8 * step, gained[step]);
    wgmma_fence();
    multiply<T, 64, 4>(o, values, part(layout.scores_at()), true);
    wgmma_commit();
    multiply<T, kKeys, 4>(s, gained, operands + static_cast<uint32_t>(layout.gains_at()), true);
    wgmma_commit();
    wgmma_wait<0>();

    __syncwarp();
    if (lane == 0) mbarrier_arrive(empty + 8 * slot);
    const int64_t chunk = item.begin_chunk + turn;
    if (!run.gather) {
      // o in the place of v: both are this warp's alone.
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          v[(8 * j + lane % 4 * 2 + i % 2) * kValuePitch + lane / 4 + i / 2 * 8] = from_float<T>(o[4 * j + i]);
      __syncwarp();
      store_output<T>(p, run.o_aligned, v, kValuePitch, item, chunk, item.first_row + 16 * warp, lane);
    }
    if (p.checkpoint_every || turn + 1 == turns) {
      float end[kKeys / 8][4];
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) end[i / 4][i % 4] = s[i];
      item.store_checkpoint<kKeys>(p, run, chunk, row, lane, end);
      if (turn + 1 == turns) item.store<kKeys>(p, run, row, lane, end);
    }
    __syncwarp();  // v may be fetched into
  }
#endif
}

template <class T>
void launch_keys(const Params& p, const ScanRun& run, int64_t units, NativeStream stream) {
  const dim3 grid(static_cast<unsigned>(units * run.slices));
  const auto bytes = static_cast<size_t>(shared_bytes(run.layout));
  if (run.layout.keys == 128)
    launch(scan_hopper_kernel<T, 128>, grid, dim3(kThreads), bytes, stream, p, run);
  else
    launch(scan_hopper_kernel<T, 64>, grid, dim3(kThreads), bytes, stream, p, run);
}

}  // namespace

void scan_hopper(const Params& p, const ScanRun& run, int64_t units, NativeStream stream) {
  if (p.dtype == DType::f16)
    launch_keys<half_t>(p, run, units, stream);
  else
    launch_keys<bfloat16_t>(p, run, units, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
