#include "ops/glue/sample.h"

#include "ops/glue/sample_weights.h"

namespace culebra {

SampleParams check_sample(const Call& call, const cul_sample_args& args) {
  const View logits = call.required(args.logits, "logits"), temperature = call.required(args.temperature, "temperature"),
             top_k = call.required(args.top_k, "top_k"), top_p = call.required(args.top_p, "top_p"),
             min_p = call.required(args.min_p, "min_p"), seed = call.required(args.seed, "seed"),
             position = call.required(args.position, "position"), ids = call.required(args.ids, "ids"),
             logprob = call.optional(args.logprob, "logprob");
  call.rank(logits, 2, "[B,V]");
  call.dtype(logits, {DType::f32, DType::f16, DType::bf16});
  const std::pair<const View*, DType> vectors[] = {
      {&temperature, DType::f32}, {&top_k, DType::i32},    {&top_p, DType::f32}, {&min_p, DType::f32},
      {&seed, DType::i64},        {&position, DType::i64}, {&ids, DType::i32},   {&logprob, DType::f32}};
  for (const auto& [v, dtype] : vectors) {
    if (!*v) continue;
    call.rank(*v, 1, "[B]");
    call.dtype(*v, {dtype});
  }
  if (logits[1] < 1 || logits[1] > INT32_MAX)
    call.refuse(CUL_SHAPE, "logits is %s; its last dimension must be 1 to 2^31 - 1", shape_text(logits).c_str());
  for (const auto& [v, dtype] : vectors) {
    if (!*v) continue;
    call.shape(*v, {logits[0]}, "[B]");
    call.compact(*v);
  }
  for (const View* out : {&ids, &logprob}) {
    call.disjoint(*out, logits);
    for (const View* in : {&temperature, &top_k, &top_p, &min_p, &seed, &position}) call.disjoint(*out, *in);
  }
  call.disjoint(ids, logprob);
  return {logits.dtype, logits[0], logits[1], glue::aligned_rows({&logits}), glue::sample_shift(logits[1]),
          glue::rows_of(logits), temperature.as<const float>(), top_k.as<const int32_t>(), top_p.as<const float>(),
          min_p.as<const float>(), seed.as<const int64_t>(), position.as<const int64_t>(), ids.as<int32_t>(),
          logprob.as<float>()};
}

}  // namespace culebra
