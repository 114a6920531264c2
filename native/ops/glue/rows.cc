#include "ops/glue/rows.h"

#include <cstdlib>

namespace culebra::glue {

void require_distinct(const Call& call, const View& out) {
  if (out.elements() == 0) return;
  int order[kMaxRank];  // dimensions by ascending stride
  int n = 0;
  for (int i = 0; i < out.rank; ++i) {
    if (out[i] <= 1) continue;
    int at = n++;
    for (; at > 0 && std::llabs(out.stride_of(order[at - 1])) > std::llabs(out.stride_of(i)); --at) order[at] = order[at - 1];
    order[at] = i;
  }
  int64_t reach = 0;  // of the dimensions so far, in elements
  for (int i = 0; i < n; ++i) {
    const int64_t stride = std::llabs(out.stride_of(order[i]));
    if (stride <= reach)
      call.refuse(CUL_STRIDE, "%s is %s with stride %lld in dimension %d: its elements would overlap", out.name,
                  shape_text(out).c_str(), static_cast<long long>(out.stride_of(order[i])), order[i]);
    reach += (out[order[i]] - 1) * stride;
  }
}

}  // namespace culebra::glue
