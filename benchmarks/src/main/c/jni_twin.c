/* The calls of the bindings once more, over JNI: what the bridge would cost if it had been built the classical way. The
 * library is the same one, already loaded by Java, which hands its functions' addresses over. Arguments travel as
 * JNI arguments, and the struct is filled here, as a JNI library would do it. */
#include <jni.h>
#include <stdint.h>
#include <string.h>

#include "culebra/glue.h"

static uint32_t (*abi_version)(void);
static cul_status (*stream_query)(cul_stream*, int32_t*);
static cul_status (*rms_norm)(cul_stream*, const cul_rms_norm_args*);
static cul_status (*sample)(cul_stream*, const cul_sample_args*);

#define TWIN(type, name) JNIEXPORT type JNICALL Java_dev_culebra_benchmarks_calls_JniTwin_##name
#define HANDLE(type, value) ((type*)(intptr_t)(value))

TWIN(void, bind)(JNIEnv* env, jclass cls, jlong abi_version_at, jlong stream_query_at, jlong rms_norm_at, jlong sample_at) {
  (void)env, (void)cls;
  memcpy(&abi_version, &abi_version_at, sizeof abi_version);
  memcpy(&stream_query, &stream_query_at, sizeof stream_query);
  memcpy(&rms_norm, &rms_norm_at, sizeof rms_norm);
  memcpy(&sample, &sample_at, sizeof sample);
}

TWIN(jint, abiVersion)(JNIEnv* env, jclass cls) {
  (void)env, (void)cls;
  return (jint)abi_version();
}

/* 1 or 0; a failure is its status, negative. */
TWIN(jint, streamQuery)(JNIEnv* env, jclass cls, jlong stream) {
  (void)env, (void)cls;
  int32_t done = 0;
  const cul_status status = stream_query(HANDLE(cul_stream, stream), &done);
  return status == CUL_OK ? done : -status;
}

TWIN(jint, rmsNorm)(JNIEnv* env, jclass cls, jlong stream, jint flags, jlong x, jlong weight, jlong residual, jlong y,
                    jlong residual_out, jfloat eps, jboolean zero_centered) {
  (void)env, (void)cls;
  const cul_rms_norm_args args = {
      .call = {.struct_size = sizeof args, .flags = (uint32_t)flags},
      .x = HANDLE(cul_tensor, x),
      .weight = HANDLE(cul_tensor, weight),
      .residual = HANDLE(cul_tensor, residual),
      .y = HANDLE(cul_tensor, y),
      .residual_out = HANDLE(cul_tensor, residual_out),
      .eps = eps,
      .zero_centered = zero_centered,
  };
  return rms_norm(HANDLE(cul_stream, stream), &args);
}

TWIN(jint, sample)(JNIEnv* env, jclass cls, jlong stream, jint flags, jlong logits, jlong temperature, jlong top_k,
                   jlong top_p, jlong min_p, jlong seed, jlong position, jlong ids, jlong logprob) {
  (void)env, (void)cls;
  const cul_sample_args args = {
      .call = {.struct_size = sizeof args, .flags = (uint32_t)flags},
      .logits = HANDLE(cul_tensor, logits),
      .temperature = HANDLE(cul_tensor, temperature),
      .top_k = HANDLE(cul_tensor, top_k),
      .top_p = HANDLE(cul_tensor, top_p),
      .min_p = HANDLE(cul_tensor, min_p),
      .seed = HANDLE(cul_tensor, seed),
      .position = HANDLE(cul_tensor, position),
      .ids = HANDLE(cul_tensor, ids),
      .logprob = HANDLE(cul_tensor, logprob),
  };
  return sample(HANDLE(cul_stream, stream), &args);
}
