// The glue family's exported functions and rows.
#include "abi/registry.h"
#include "ops/glue/elementwise.h"
#include "ops/glue/embedding.h"
#include "ops/glue/gated_products.h"
#include "ops/glue/norms.h"
#include "ops/glue/rope.h"
#include "ops/glue/sample.h"
#include "ops/glue/softmax.h"

namespace culebra {
namespace {

constexpr const char* kFloats = "f32 f16 bf16";

// `fn` names the columns.
#define CUL_GLUE_OP(Params, name, dtypes, fn) \
  Op<Params> { name, "glue", dtypes, cpu::fn, CUL_CUDA(fn), CUL_SIMT(fn) }

constexpr auto kRmsNorm = CUL_GLUE_OP(RmsNormParams, "rms_norm", kFloats, rms_norm);
constexpr auto kLayerNorm = CUL_GLUE_OP(LayerNormParams, "layer_norm", kFloats, layer_norm);
constexpr auto kRope = CUL_GLUE_OP(RopeParams, "rope", kFloats, rope);
constexpr auto kSiluMul = CUL_GLUE_OP(GatedProductParams, "silu_mul", kFloats, gated_product);
constexpr auto kGeluMul = CUL_GLUE_OP(GatedProductParams, "gelu_mul", kFloats, gated_product);
constexpr auto kSigmoidMul = CUL_GLUE_OP(GatedProductParams, "sigmoid_mul", kFloats, gated_product);
constexpr auto kSoftmax = CUL_GLUE_OP(SoftmaxParams, "softmax", kFloats, softmax);
constexpr auto kEmbedding = CUL_GLUE_OP(EmbeddingParams, "embedding", kFloats, embedding);
constexpr auto kArgmax = CUL_GLUE_OP(ArgmaxParams, "argmax", kFloats, argmax);
constexpr auto kAdd = CUL_GLUE_OP(AddParams, "add", "f32 f16 bf16 i32 i64", add);
constexpr auto kScale = CUL_GLUE_OP(ScaleParams, "scale", kFloats, scale);
constexpr auto kCast = CUL_GLUE_OP(CastParams, "cast", "f32 f16 bf16 f8e4m3 i8 u8 i32 i64 bool", cast);
constexpr auto kCopyStrided =
    CUL_GLUE_OP(CopyStridedParams, "copy_strided", "f32 f16 bf16 f8e4m3 i8 u8 i32 i64 bool", copy_strided);
constexpr auto kSample = CUL_GLUE_OP(SampleParams, "sample", kFloats, sample);

const OpRecord* const kOps[] = {&kRmsNorm, &kLayerNorm, &kRope,   &kSiluMul, &kGeluMul, &kSigmoidMul,  &kSoftmax,
                                &kEmbedding, &kArgmax,  &kAdd,    &kScale,   &kCast,    &kCopyStrided, &kSample};

}  // namespace

const OpList kGlueOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_rms_norm(cul_stream* stream, const cul_rms_norm_args* args) {
  return run_op(kRmsNorm, stream, args, check_rms_norm);
}
cul_status cul_layer_norm(cul_stream* stream, const cul_layer_norm_args* args) {
  return run_op(kLayerNorm, stream, args, check_layer_norm);
}
cul_status cul_rope(cul_stream* stream, const cul_rope_args* args) { return run_op(kRope, stream, args, check_rope); }
cul_status cul_silu_mul(cul_stream* stream, const cul_silu_mul_args* args) {
  return run_op(kSiluMul, stream, args, check_silu_mul);
}
cul_status cul_gelu_mul(cul_stream* stream, const cul_gelu_mul_args* args) {
  return run_op(kGeluMul, stream, args, check_gelu_mul);
}
cul_status cul_sigmoid_mul(cul_stream* stream, const cul_sigmoid_mul_args* args) {
  return run_op(kSigmoidMul, stream, args, check_sigmoid_mul);
}
cul_status cul_softmax(cul_stream* stream, const cul_softmax_args* args) {
  return run_op(kSoftmax, stream, args, check_softmax);
}
cul_status cul_embedding(cul_stream* stream, const cul_embedding_args* args) {
  return run_op(kEmbedding, stream, args, check_embedding);
}
cul_status cul_argmax(cul_stream* stream, const cul_argmax_args* args) {
  return run_op(kArgmax, stream, args, check_argmax);
}
cul_status cul_add(cul_stream* stream, const cul_add_args* args) { return run_op(kAdd, stream, args, check_add); }
cul_status cul_scale(cul_stream* stream, const cul_scale_args* args) { return run_op(kScale, stream, args, check_scale); }
cul_status cul_cast(cul_stream* stream, const cul_cast_args* args) { return run_op(kCast, stream, args, check_cast); }
cul_status cul_copy_strided(cul_stream* stream, const cul_copy_strided_args* args) {
  return run_op(kCopyStrided, stream, args, check_copy_strided);
}
cul_status cul_sample(cul_stream* stream, const cul_sample_args* args) {
  return run_op(kSample, stream, args, check_sample);
}

}  // extern "C"
