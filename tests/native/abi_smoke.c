/* The headers are C, and a null handle is refused by every function that takes one. */
#include <stdio.h>
#include <string.h>

#include "culebra/attention.h"
#include "culebra/communicator.h"
#include "culebra/culebra.h"
#include "culebra/dlpack.h"
#include "culebra/gemm.h"
#include "culebra/glue.h"
#include "culebra/kv_cache.h"
#include "culebra/linear_attention.h"
#include "culebra/module.h"
#include "culebra/moe.h"
#include "culebra/copy.h"
#include "culebra/replay.h"
#include "culebra/sparse_attention.h"

static int failures = 0;
#define REFUSED(call)                                                                          \
  do {                                                                                         \
    const cul_status s = (call);                                                               \
    if (s != CUL_NULL_POINTER || strlen(cul_last_error()) == 0) {                              \
      printf("%s answered %s: %s\n", #call, cul_status_name(s), cul_last_error());             \
      ++failures;                                                                              \
    }                                                                                          \
  } while (0)

int main(void) {
  void* p = 0;
  int32_t done = 0;
  double ms = 0;
  uint64_t n = 0;
  cul_stream* stream = 0;
  if (cul_abi_version() != CUL_ABI_VERSION) return 1;

  REFUSED(cul_device_open(CUL_BACKEND_CPU, 0, 0, 0));
  REFUSED(cul_device_close(0));
  REFUSED(cul_memory_alloc(0, 1, &p));
  REFUSED(cul_memory_free(0, &done));
  REFUSED(cul_memory_alloc_async(0, 1, &p));
  REFUSED(cul_memory_free_async(0, &done));
  REFUSED(cul_host_alloc(0, 1, &p));
  REFUSED(cul_host_free(0, &done));
  REFUSED(cul_memory_get_stats(0, 0));
  REFUSED(cul_memory_set_limit(0, 1));
  REFUSED(cul_memory_trim(0, 0));
  REFUSED(cul_copy(0, &done, &done, 4));
  REFUSED(cul_fill(0, &done, 0, 4));
  REFUSED(cul_stream_create(0, &stream));
  REFUSED(cul_stream_destroy(0));
  REFUSED(cul_stream_synchronize(0));
  REFUSED(cul_stream_query(0, &done));
  REFUSED(cul_stream_wait_event(0, 0));
  REFUSED(cul_event_create(0, 0));
  REFUSED(cul_event_destroy(0));
  REFUSED(cul_event_record(0, 0));
  REFUSED(cul_event_query(0, &done));
  REFUSED(cul_event_synchronize(0));
  REFUSED(cul_event_elapsed_ms(0, 0, &ms));
  REFUSED(cul_graph_begin_capture(0));
  REFUSED(cul_graph_end_capture(0, 0));
  REFUSED(cul_graph_abort_capture(0));
  REFUSED(cul_graph_launch(0, 0));
  REFUSED(cul_graph_node_count(0, &n));
  REFUSED(cul_graph_destroy(0));
  REFUSED(cul_copy_and_wait(0, 0, 0, 1));
  REFUSED(cul_graph_update(0, 0, &done));
  REFUSED(cul_batch(0, 0, 1, &n));
  REFUSED(cul_op_get_info(0, 0));
  REFUSED(cul_module_load(0, "", 0, 0));
  REFUSED(cul_module_compile(0, "", "", 0, 0, 0));
  REFUSED(cul_module_unload(0));
  REFUSED(cul_module_kernel(0, "", 0));
  REFUSED(cul_kernel_get_info(0, 0));
  REFUSED(cul_kernel_parameter(0, 0, 0, 0));
  REFUSED(cul_kernel_launch(0, 0, 0));
  REFUSED(cul_comm_unique_id(0, 0));
  REFUSED(cul_comm_create(0, 0, 1, 0, 1, 0));
  REFUSED(cul_comm_destroy(0));
  REFUSED(cul_comm_abort(0));
  REFUSED(cul_all_to_all(0, 0));

  REFUSED(cul_rms_norm(0, 0));
  REFUSED(cul_layer_norm(0, 0));
  REFUSED(cul_rope(0, 0));
  REFUSED(cul_silu_mul(0, 0));
  REFUSED(cul_gelu_mul(0, 0));
  REFUSED(cul_sigmoid_mul(0, 0));
  REFUSED(cul_softmax(0, 0));
  REFUSED(cul_embedding(0, 0));
  REFUSED(cul_argmax(0, 0));
  REFUSED(cul_add(0, 0));
  REFUSED(cul_scale(0, 0));
  REFUSED(cul_cast(0, 0));
  REFUSED(cul_copy_strided(0, 0));
  REFUSED(cul_sample(0, 0));
  REFUSED(cul_gemm(0, 0));
  REFUSED(cul_pack_plan(0, 0, 0, 0, 0));
  REFUSED(cul_pack_weights(0, 0));
  REFUSED(cul_unpack_weights(0, 0));
  REFUSED(cul_quantize_weights(0, 0));
  REFUSED(cul_w4a16_gemm(0, 0));
  REFUSED(cul_w4a16_sparse24_gemm(0, 0));
  REFUSED(cul_w8a16_gemm(0, 0));
  REFUSED(cul_w6a16_gemm(0, 0));
  REFUSED(cul_quantize_activations(0, 0));
  REFUSED(cul_fp8_gemm(0, 0));
  REFUSED(cul_w4a8_gemm(0, 0));
  REFUSED(cul_w6a8_gemm(0, 0));
  REFUSED(cul_sparse_mlp(0, 0));
  REFUSED(cul_linear_logprob(0, 0));
  REFUSED(cul_simple_gla(0, 0));
  REFUSED(cul_gated_linear_attention(0, 0));
  REFUSED(cul_delta_rule(0, 0));
  REFUSED(cul_gated_delta_rule(0, 0));
  REFUSED(cul_kda(0, 0));
  REFUSED(cul_linear_attention(0, 0));
  REFUSED(cul_mlstm(0, 0));
  REFUSED(cul_mixture_of_memories(0, 0));
  REFUSED(cul_local_linear_attention(0, 0));
  REFUSED(cul_causal_conv1d(0, 0));
  REFUSED(cul_conv_fft(0, 0));
  REFUSED(cul_gated_rms_norm(0, 0));
  REFUSED(cul_attention(0, 0));
  REFUSED(cul_paged_attention(0, 0));
  REFUSED(cul_paged_append(0, 0));
  REFUSED(cul_merge_states(0, 0));
  REFUSED(cul_mla_attention(0, 0));
  REFUSED(cul_bitmap_kv_compress(0, 0));
  REFUSED(cul_bitmap_kv_attention(0, 0));
  REFUSED(cul_kv_page_stats(0, 0));
  REFUSED(cul_kv_select(0, 0));
  REFUSED(cul_kv_merge(0, 0));
  REFUSED(cul_mla_index_topk(0, 0));
  REFUSED(cul_cca_qkv(0, 0));
  REFUSED(cul_sparse_linear_attention(0, 0));
  REFUSED(cul_estimated_sparse_attention(0, 0));
  REFUSED(cul_moe_route(0, 0));
  REFUSED(cul_moe_align(0, 0));
  REFUSED(cul_moe_permute(0, 0));
  REFUSED(cul_moe_combine(0, 0));
  REFUSED(cul_moe_dispatch(0, 0));
  REFUSED(cul_moe_mlp(0, 0));
  REFUSED(cul_moe_grouped_gemm(0, 0));
  REFUSED(cul_block_sparse_attention(0, 0));
  REFUSED(cul_neighborhood_attention(0, 0));
  REFUSED(cul_neighborhood_tiles(0, 0, 0, 0));
  REFUSED(cul_nsa_compress(0, 0));
  REFUSED(cul_nsa_compressed_attention(0, 0));
  REFUSED(cul_nsa_select(0, 0));
  REFUSED(cul_nsa_selected_attention(0, 0));
  REFUSED(cul_nsa_attention(0, 0));
  return failures ? 1 : 0;
}
