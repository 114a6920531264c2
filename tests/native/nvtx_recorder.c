/* What a profiler does with NVTX: loaded through NVTX_INJECTION64_PATH, it prints every range that a program opens. */
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>

static int depth = 0;

static nvtxDomainHandle_t create(const char* name) {
  fprintf(stderr, "nvtx domain %s\n", name);
  return (nvtxDomainHandle_t)&depth;
}
static int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* attributes) {
  fprintf(stderr, "nvtx %s %s\n", domain == (nvtxDomainHandle_t)&depth ? "range" : "range of no domain", attributes->message.ascii);
  return depth++;
}
static int pop(nvtxDomainHandle_t domain) {
  (void)domain;
  if (--depth < 0) fprintf(stderr, "nvtx: a range ends that was never opened\n");
  return depth;
}

__attribute__((destructor)) static void finish(void) { fprintf(stderr, "nvtx ranges left open: %d\n", depth); }

__attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table) {
  const NvtxExportTableCallbacks* callbacks = (const NvtxExportTableCallbacks*)get_table(NVTX_ETID_CALLBACKS);
  NvtxFunctionTable table = 0;
  unsigned int size = 0;
  if (!callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
  *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)create;
  *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)push;
  *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)pop;
  return 1;
}
