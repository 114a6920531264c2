// Index tensors are device data: an op looks at them when it runs, on the cpu always where they would lead outside, elsewhere under
// CUL_OP_VALIDATE (device/validate.h). What is valid is said once, for host and device.
#pragma once
#include <string>

#include "abi/status.h"
#include "device/numeric.h"

namespace culebra {

// P has
//   int64_t index_items() const              pieces that are looked at one by one
//   bool valid(int64_t i) const              CUL_NUMERIC: whether piece i leads nowhere outside; reads the tensors
//   std::string invalid_text(int64_t i) const  what is wrong with it
// Throws DeviceError for the first piece that is not valid.
template <class P>
void require_valid(const char* op, const P& p) {
  for (int64_t i = 0; i < p.index_items(); ++i)
    if (!p.valid(i)) throw DeviceError(std::string(op) + ": " + p.invalid_text(i));
}

// Sequence n of packed ones: the starts begin with 0, never fall and end within `rows`.
CUL_NUMERIC bool valid_starts(const int32_t* cu, int64_t n, int64_t rows) { return cu[0] == 0 && cu[n] <= cu[n + 1] && cu[n + 1] <= rows; }

// One sequence's pages: entries [begin, end) of a row of the page table.
CUL_NUMERIC bool valid_pages(const int32_t* table, int64_t begin, int64_t end, int64_t pages, int32_t least) {
  for (int64_t i = begin; i < end; ++i)
    if (table[i] < least || table[i] >= pages) return false;
  return true;
}

}  // namespace culebra
