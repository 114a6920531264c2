// moe_mlp for few tokens: the kernel. DECODE.md, has the picture.
#pragma once
#include "device/async_copy.h"
#include "device/grid.h"
#include "device/launch.h"
#include "device/warp.h"
#include "ops/moe/moe_decode_formats.cuh"
#include "ops/moe/moe_decode_table.cuh"
#include "ops/moe/moe_mlp.h"

namespace culebra::CUL_DEVICE_NS {

using DecodeShape = MoeDecodeShape;
inline constexpr int kDecodeThreads = DecodeShape::kWarps * 32;

// This block's share of a phase: units [begin, end) of so many tiles an expert, so many steps each.
struct DecodePhase {
  int begin, end, tiles, steps;
};
CUL_DEVICE_FN DecodePhase phase_of(int64_t rows, int rows_of_unit, int64_t columns, int columns_of_step, int experts) {
  const int tiles = static_cast<int>((rows + rows_of_unit - 1) / rows_of_unit);
  const int64_t units = int64_t{tiles} * experts;
  return {static_cast<int>(units * blockIdx.x / gridDim.x), static_cast<int>(units * (blockIdx.x + 1) / gridDim.x), tiles,
          static_cast<int>((columns + columns_of_step - 1) / columns_of_step)};
}

// Row r of a unit: of the first phase 16 gate rows, then the up rows that belong to them; -1 beyond the matrix.
CUL_DEVICE_FN int64_t unit_row(bool second, int tile, int r, int64_t width, int64_t expert_width) {
  const int64_t row = second ? int64_t{tile} * 32 + r : int64_t{tile} * 16 + r % 16;
  if (row >= (second ? width : expert_width)) return -1;
  return !second && r >= 16 ? expert_width + row : row;
}

// The warp's steps in their order, both phases', which it fetches ahead of their use: through the barrier between the phases, too.
template <class T, int kStorage>
struct DecodeFetch {
  using Format = DecodeFormat<T, kStorage>;
  static constexpr bool kInt4 = kStorage == CUL_EXPERTS_INT4, kHalf = kStorage == CUL_EXPERTS_HALF;

  const MoeMlpOperands& p;
  const int32_t* list;
  const DecodePhase (&phases)[2];  // read with constant indices only: the array stays in registers
  unsigned char* stages;
  int warp, lane;

  DecodePhase now{};  // phases[phase]
  int phase = 0, unit = 0, step = 0, stage = 0;
  int64_t row_bytes = 0;
  bool aligned = false;
  const uint8_t* rows[4] = {};  // that this lane copies a chunk of; null beyond the matrix
  // The scales of row `lane`, on their way from memory to the stage of the step before.
  const uint8_t* scale_row = nullptr;
  const uint8_t* zero_row = nullptr;
  int zero_shift = 0, groups = 0;
  int pending_stage = -1;
  bool pending_bf16 = false;
  uint32_t pending_scale[4] = {}, pending_zero[4] = {};

  CUL_DEVICE_FN static int first_step(int warp, int unit) { return (warp + unit) % DecodeShape::kWarps; }

  CUL_DEVICE_FN void start() {
    now = phases[0];
    unit = now.begin - 1;
    next_unit();
  }

  CUL_DEVICE_FN void next_unit() {
    do {
      ++unit;
      while (unit >= now.end) {
        if (++phase == 2) return;
        now = phases[1];
        unit = now.begin;
      }
      step = first_step(warp, unit);
    } while (step >= now.steps);
    open();
  }

  CUL_DEVICE_FN void open() {
    const bool second = phase == 1;
    const int index = unit / now.tiles, tile = unit - index * now.tiles;
    const int64_t e = list[index];
    const auto* const data = static_cast<const uint8_t*>(second ? p.w2.data : p.w13.data);
    const int64_t size = kHalf ? 2 : 1, row_stride = (second ? p.w2.row_stride : p.w13.row_stride) * size,
                  expert_stride = (second ? p.w2.expert_stride : p.w13.expert_stride) * size;
    row_bytes = (second ? p.expert_width : p.width) * Format::kBits / 8;
    aligned = row_stride % 16 == 0 && expert_stride % 16 == 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = unit_row(second, tile, lane / 4 + 8 * i, p.width, p.expert_width);
      rows[i] = row < 0 ? nullptr : data + e * expert_stride + row * row_stride;
    }
    if constexpr (!kHalf) {
      const ExpertScales s = scales_of(second);
      const int64_t row = unit_row(second, tile, lane, p.width, p.expert_width);
      groups = s.groups;
      scale_row = row < 0 ? nullptr : s.data + (e * s.expert_stride + (kInt4 ? row : row / 128) * s.row_stride) * (kInt4 ? 2 : 4);
      if constexpr (kInt4) {
        zero_row = row < 0 || !s.zeros ? nullptr : s.zeros + e * s.zero_expert_stride + row / 2 * s.zero_row_stride;
        zero_shift = static_cast<int>(row % 2) * 4;
      }
    }
  }

  struct ExpertScales {
    const uint8_t* data;
    int64_t expert_stride, row_stride;
    const uint8_t* zeros;
    int64_t zero_expert_stride, zero_row_stride;
    int groups;  // of a row
  };
  CUL_DEVICE_FN ExpertScales scales_of(bool second) const {
    const int64_t columns = second ? p.expert_width : p.width;
    const int64_t group = kInt4 ? (p.group_bits < 0 ? columns : int64_t{1} << p.group_bits) : 128;
    const auto bytes = [](const void* data) { return static_cast<const uint8_t*>(data); };
    return {second ? bytes(p.w2.scales) : bytes(p.w13.scales), second ? p.w2.scale_expert_stride : p.w13.scale_expert_stride,
            second ? p.w2.scale_row_stride : p.w13.scale_row_stride, second ? p.w2.zeros : p.w13.zeros,
            second ? p.w2.zero_expert_stride : p.w13.zero_expert_stride, second ? p.w2.zero_row_stride : p.w13.zero_row_stride,
            columns == 0 ? 0 : static_cast<int>((columns + group - 1) / group)};
  }

  // Asks for the next step; there is a group of copies for each call, empty when nothing is left.
  CUL_DEVICE_FN void issue() {
    store_scales();
    if (phase < 2) {
      copy_rows();
      load_scales();
      step += DecodeShape::kWarps;
      if (step >= now.steps) next_unit();
    }
    cp_async_commit();
    stage = stage + 1 == DecodeShape::kStages ? 0 : stage + 1;
  }

  CUL_DEVICE_FN void copy_rows() const {
    unsigned char* const to = stages + stage * p.decode.stage_bytes + stage_chunk(lane / 4, lane % 4);
    const int64_t begin = int64_t{step} * DecodeShape::kStepBytes, at = begin + lane % 4 * 16;
    if (aligned && begin + DecodeShape::kStepBytes <= row_bytes) {  // nearly always
#pragma unroll
      for (int i = 0; i < 4; ++i) cp_async_stream(shared_address(to + 512 * i), rows[i] ? rows[i] + at : p.w13.data, rows[i] != nullptr);
      return;
    }
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
      unsigned char* const chunk = to + 512 * i;
      const uint8_t* const row = i == 0 ? rows[0] : i == 1 ? rows[1] : i == 2 ? rows[2] : rows[3];
      const bool inside = row && at < row_bytes;
      if (aligned && (!inside || at + 16 <= row_bytes)) {
        cp_async_stream(shared_address(chunk), inside ? row + at : p.w13.data, inside);
      } else {
        copy_bytes(chunk, row, at);
      }
    }
  }
  // The last chunk of a row, and every one of rows that do not begin at multiples of 16 bytes.
  CUL_DEVICE_FN void copy_bytes(unsigned char* chunk, const uint8_t* row, int64_t at) const {
    uint32_t words[4] = {};
    for (int b = 0; b < 16 && row && at + b < row_bytes; ++b) {
      const uint32_t byte = static_cast<uint32_t>(row[at + b]) << (b % 4 * 8);
#pragma unroll
      for (int w = 0; w < 4; ++w) words[w] |= b / 4 == w ? byte : 0;
    }
    *reinterpret_cast<uint4*>(chunk) = make_uint4(words[0], words[1], words[2], words[3]);
  }

  CUL_DEVICE_FN void load_scales() {
    if constexpr (!kHalf) {
      pending_stage = stage;
      if constexpr (kInt4) {
        pending_bf16 = (phase == 1 ? p.w2.scale_dtype : p.w13.scale_dtype) == DType::bf16;
        const int first = p.group_bits < 0 ? 0 : step * p.decode.side_groups;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool inside = scale_row && i < p.decode.side_groups && first + i < groups;
          pending_scale[i] = inside ? reinterpret_cast<const uint16_t*>(scale_row)[first + i] : 0;
          pending_zero[i] = inside && zero_row ? zero_row[first + i] >> zero_shift & 15u : 8u;
        }
      } else {
        pending_scale[0] = scale_row ? reinterpret_cast<const uint32_t*>(scale_row)[step / 2] : 0;
      }
    }
  }
  CUL_DEVICE_FN void store_scales() {
    if constexpr (!kHalf) {
      if (pending_stage < 0) return;
      auto* const to = reinterpret_cast<uint32_t*>(stages + pending_stage * p.decode.stage_bytes + 2048);
      pending_stage = -1;
      if constexpr (kInt4) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (i < p.decode.side_groups) {
            to[32 * i + lane] = __float_as_uint(half_scale(pending_scale[i], pending_bf16));
            to[32 * (p.decode.side_groups + i) + lane] = int4_magic<T> | pending_zero[i] * 0x00010001u;
          }
      } else {
        to[lane] = pending_scale[0];
      }
    }
  }
};

CUL_DEVICE_FN float decode_activation(const MoeMlpOperands& p, float gate, float up) {
  switch (p.act) {
    case CUL_MOE_ACT_GELU:
      return 0.5f * gate * (1 + erff(gate * 0.70710678118654752f)) * up;
    case CUL_MOE_ACT_SWIGLU_OAI:
      gate = gate > p.limit ? p.limit : gate;
      up = up > p.limit ? p.limit : up < -p.limit ? -p.limit : up;
      return (up + 1) * gate / (1 + expf(-p.alpha * gate));
    default:
      return gate / (1 + expf(-gate)) * up;
  }
}

// `count` rows of `columns` halves, `stride` apart, to shared rows of `pitch`, in the format's order, with zeros up to the last step's end.
template <class Format, class T>
CUL_DEVICE_FN void load_rows(T* to, int64_t pitch, const T* from, int64_t stride, int count, int64_t columns) {
  const int64_t chunks = (columns + 127) / 128 * 16;
  const bool aligned = stride % 8 == 0;
  for (int64_t i = threadIdx.x; i < count * chunks; i += kDecodeThreads) {
    const int64_t row = i / chunks, column = i % chunks * 8;
    const T* const source = from + row * stride + column;
    Vector<T, 8> values{}, ordered;
    if (aligned && column + 8 <= columns) {
      values = *reinterpret_cast<const Vector<T, 8>*>(source);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if (column + j < columns) values[j] = source[j];
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) ordered[Format::place(j)] = values[j];
    store_vector<T, 8>(to + row * pitch + column, ordered);
  }
}

// Computes: y_t = sum_j weights[t,j] (w2 (act(gate) * up) + b2), (gate, up) = w13 x_t + b13, of expert ids[t,j]; with logits the routing, too.
// Shapes:   x, y [T,D], T up to 8; w13 [E,2I,D], w2 [E,D,I]; hidden [S,T,I], outputs [S,T,D] of the S selected experts in the workspace.
// Layouts:  row-major, any row strides; copies of 16 bytes where rows begin at multiples of them.
// Tiles:    a unit: 32 rows of a matrix (16 gate and their up rows), all columns; warps take every eighth step of 64 bytes a row. Units are
//           shared equally between blocks, experts ascending. Tokens are the 8 columns of m16n8k16.
// Shared:   x, later hidden rows; a ring of 5 steps a warp; two units' partial sums; the list of selected experts.
// Order:    a warp's steps ascending, then the warps' sums by the step they began with: it depends on D and I alone. Slots in the order of j.
// Numerics: weights exact in T (f8 in bf16: exact, too), products f32, each group's sum times its scale in f32; hidden rounded to T once.
// Needs:    sm_80, a cooperative launch: blocks wait for one another twice. Limit: 3 I D bytes x (2, 1, 1/2) of each selected expert.
// Source:   DECODE.md; one kernel for routing, dispatch and both products: FlashMoE, arXiv:2506.04667.
template <class T, int kStorage>
__global__ void __launch_bounds__(kDecodeThreads, 1) moe_decode_kernel(const __grid_constant__ MoeMlpOperands p, int64_t first_token, int tokens) {
  using Format = DecodeFormat<T, kStorage>;
  constexpr int kWarps = DecodeShape::kWarps, kPitch = DecodeShape::kSumPitch, kColumns = DecodeShape::kColumns;
  CUL_DYNAMIC_SHARED(unsigned char, memory, 128);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const DecodeTable table(p, memory, first_token, tokens);
  const int experts = table.build();

  const DecodePhase phases[2] = {phase_of(p.expert_width, 16, p.width, Format::kStepColumns, experts),
                                 phase_of(p.width, 32, p.expert_width, Format::kStepColumns, experts)};
  unsigned char* const ring = memory + p.decode.ring_at + warp * (DecodeShape::kStages * p.decode.stage_bytes);
  DecodeFetch<T, kStorage> fetch{p, table.list, phases, ring, warp, lane};
  fetch.start();
#pragma unroll 1
  for (int i = 0; i < DecodeShape::kStages - 1; ++i) fetch.issue();

  T* const rows = reinterpret_cast<T*>(memory + p.decode.rows_at);
  load_rows<Format>(rows, p.decode.x_pitch, static_cast<const T*>(p.x) + first_token * p.x_stride, p.x_stride, tokens, p.width);
  T* const hidden = static_cast<T*>(p.workspace);
  float* const outputs = reinterpret_cast<float*>(static_cast<unsigned char*>(p.workspace) + p.decode.outputs_at);
  float* const sums = reinterpret_cast<float*>(memory + p.decode.sums_at);
  int stage = 0, buffer = 0;

  // The sums of a unit's 32 rows with tokens whose rows begin at `token`, of all warps: [8 warps][8 tokens][33].
  const auto multiply = [&](int unit, int steps, const T* token) {
    DecodeSums own;
    own.clear();
    const int first = fetch.first_step(warp, unit);
#pragma unroll 1
    for (int step = first; step < steps; step += kWarps) {
      cp_async_wait<DecodeShape::kStages - 2>();
      __syncwarp();  // every lane's copies have landed, and nobody reads the stage that is filled next
      fetch.issue();
      Format::multiply(own, ring + stage * p.decode.stage_bytes, token + step * Format::kStepColumns, p.decode.side_groups, lane);
      stage = stage + 1 == DecodeShape::kStages ? 0 : stage + 1;
    }
    float* const to = sums + ((buffer * kWarps + first) * kColumns + lane % 4 * 2) * kPitch + lane / 4;
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i % 2 * kPitch + 16 * tile + i / 2 * 8] = own.of[tile][i];
    __syncthreads();
    const float* const all = sums + buffer * kWarps * kColumns * kPitch;
    buffer ^= 1;  // whoever reads `all` still is done before the next barrier, and only behind that it is written again
    return all;
  };
  const auto sum_of = [&](const float* all, int row, int column) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += all[(w * kColumns + column) * kPitch + row];
    return sum;
  };
  const int own_token = min(lane / 4, tokens - 1);  // columns without a token repeat the last one; nobody reads their sums

  __syncthreads();
#pragma unroll 1
  for (int unit = phases[0].begin; unit < phases[0].end; ++unit) {
    const float* const all = multiply(unit, phases[0].steps, rows + own_token * p.decode.x_pitch);
    const int index = unit / phases[0].tiles, column = thread / 16;
    const int64_t i = int64_t{unit - index * phases[0].tiles} * 16 + thread % 16, e = table.list[index];
    if (column >= tokens || i >= p.expert_width) continue;
    float gate = sum_of(all, thread % 16, column), up = sum_of(all, 16 + thread % 16, column);
    if (p.b13) {
      const T* const bias = static_cast<const T*>(p.b13) + e * p.b13_stride;
      gate += to_float(bias[i]);
      up += to_float(bias[p.expert_width + i]);
    }
    hidden[(int64_t{index} * tokens + column) * p.decode.hidden_stride + i] = from_float<T>(decode_activation(p, gate, up));
  }

  grid_wait(grid_arrive());  // every block's hidden rows; the first steps of w2 are on their way
  int loaded = 0, loaded_end = 0;  // the experts whose hidden rows are in shared memory
#pragma unroll 1
  for (int unit = phases[1].begin; unit < phases[1].end; ++unit) {
    const int index = unit / phases[1].tiles;
    if (index >= loaded_end) {
      loaded = index;
      loaded_end = min(loaded + static_cast<int>(p.decode.hidden_experts), (phases[1].end - 1) / phases[1].tiles + 1);
      __syncthreads();
      load_rows<Format>(rows, p.decode.hidden_pitch, hidden + int64_t{loaded} * tokens * p.decode.hidden_stride, p.decode.hidden_stride,
                        (loaded_end - loaded) * tokens, p.expert_width);
      __syncthreads();
    }
    const float* const all =
        multiply(unit, phases[1].steps, rows + (int64_t{index - loaded} * tokens + own_token) * p.decode.hidden_pitch);
    const int64_t row = int64_t{unit - index * phases[1].tiles} * 32 + lane;
    if (warp < tokens && row < p.width) outputs[(int64_t{index} * tokens + warp) * p.width + row] = sum_of(all, lane, warp);
  }
  cp_async_wait<0>();

  grid_wait(grid_arrive());  // every block's outputs
  for (int64_t i = int64_t{blockIdx.x} * kDecodeThreads + thread; i < tokens * p.width; i += int64_t{gridDim.x} * kDecodeThreads) {
    const int token = static_cast<int>(i / p.width);
    const int64_t column = i - token * p.width;
    float sum = 0;
    for (int j = 0; j < p.slots_per_token; ++j) {
      const int32_t e = table.id(token, j);
      if (e < 0 || e >= p.experts) continue;
      float value = outputs[(int64_t{table.index(e)} * tokens + token) * p.width + column];
      if (p.b2) value += to_float(static_cast<const T*>(p.b2)[e * p.b2_stride + column]);
      sum = fmaf(table.weight(token, j), value, sum);
    }
    static_cast<T*>(p.y)[(first_token + token) * p.y_stride + column] = from_float<T>(sum);
  }
}

template <int kStorage>
void launch_moe_decode(const MoeMlpOperands& p, NativeStream stream) {
  const auto run = [&](auto tag) {
    for (int64_t token = 0; token < p.tokens; token += p.decode.tokens)
      launch_together(moe_decode_kernel<decltype(tag), kStorage>, dim3(static_cast<unsigned>(p.decode.blocks)), dim3(kDecodeThreads),
                      static_cast<size_t>(p.decode.shared_bytes), stream, p, token,
                      static_cast<int>(p.tokens - token < p.decode.tokens ? p.tokens - token : p.decode.tokens));
  };
  if (p.dtype == DType::f16)
    run(half_t{});
  else
    run(bfloat16_t{});
}

}  // namespace culebra::CUL_DEVICE_NS
