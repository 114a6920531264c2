// conv_fft: its plan and its columns.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/linear_attention.h"
#include "device/numeric.h"

namespace culebra {

// How a long convolution is cut. Filters of few taps go tap by tap, of some as a Toeplitz matrix on tensor cores (device, halves). Others go
// through transforms of P = 2^log2_points points: a window of P inputs ends with every hop-th token and gives the outputs of its last `hop`
// tokens. A filter that reaches further than a window is cut into parts of hop = P / 2 taps; part j meets the window j hops earlier.
struct ConvFftPlan {
  enum class Form { taps, blocks, windows };
  Form form = Form::taps;
  // Of windows only:
  int log2_points = 0;
  int64_t hop = 0;
  int64_t windows = 0;  // of one row of the batch
  int64_t parts = 0;    // of a filter
  // Device: pairs of channels and rows of the batch that share the workspace, and whether it has copies of their x and y in which a pair's
  // tokens stand behind one another.
  int64_t pairs_at_once = 0, rows_at_once = 0;
  bool copies = false;

  CUL_NUMERIC int64_t points() const { return int64_t{1} << log2_points; }
  CUL_NUMERIC int64_t first_token(int64_t window) const { return (window + 1) * hop - points(); }
  // Points as pairs of floats: of the filters' spectra, and of the inputs'.
  int64_t filter_points() const { return pairs_at_once * parts * points(); }
  int64_t input_points() const { return parts > 1 ? rows_at_once * pairs_at_once * windows * points() : 0; }
  // Elements of one copy.
  int64_t copy_elems(int64_t tokens) const { return copies ? rows_at_once * pairs_at_once * 2 * tokens : 0; }
};

struct ConvFftParams {
  // Element (b, t, c) at data[b batch + t token + c].
  struct Rows {
    void* data = nullptr;
    int64_t batch = 0, token = 0;
  };
  DType dtype = DType::f32;
  bool skip_is_f32 = false;
  int64_t batch = 0, tokens = 0, channels = 0, taps = 0;
  Rows x, y;
  const float* filter = nullptr;  // [C,L], rows filter_stride apart
  int64_t filter_stride = 0;
  const void* skip = nullptr;
  ConvFftPlan plan;
  void* workspace = nullptr;

  int64_t pairs() const { return (channels + 1) / 2; }
};

// The largest transforms on a cpu: larger than any memory. Those beyond a cache are cheap there too, since a transform is run depth first.
inline constexpr int kCpuLog2Points = 40;

// What a backend's transforms are like.
struct ConvFftLimits {
  int log2_points = 0;       // the largest
  int64_t direct_taps = 0;   // no filter is longer that goes tap by tap
  int64_t block_taps = 0;    // nor one that goes in blocks
  // Pairs of channels and rows of the batch share this much memory at once, unless one pair needs more; 0: no scratch.
  int64_t scratch_bytes = 0;
  int64_t element_bytes = 4;
};
ConvFftLimits conv_fft_limits(const DeviceCaps& caps, DType dtype);

// A pure function of the shape. Cuts depend on T and L alone, so a row of the batch gets the same bits in any company.
ConvFftPlan plan_conv_fft(int64_t batch, int64_t tokens, int64_t channels, int64_t taps, const ConvFftLimits& limits, std::string* reason);

ConvFftParams check_conv_fft(const Call& call, const cul_conv_fft_args& args);
CUL_DECLARE_COLUMNS(conv_fft, ConvFftParams)

}  // namespace culebra
