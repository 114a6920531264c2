// The work items of attention on the cpu.
#pragma once
#include <cstdint>

namespace culebra::cpu {

// Query rows [row, row + rows) of each of the KV heads [head, head_end) in sequence b, and its keys [key, key_end). Row r of a head is query
// r / G, head r % G of the group.
struct AttentionItem {
  int64_t b = 0, head = 0, head_end = 0, row = 0, rows = 0, key = 0, key_end = 0;
  bool by_matrix = false;
  // Where among the states those of the rows go, row by row, `pitch` numbers from one head's to the next's; -1: nobody else sees keys.
  int64_t state = -1, pitch = 0;
};

// A few rows of a sequence whose keys went to `splits` items: their states lie one after the other, [splits, KV heads, rows].
struct AttentionMerge {
  int64_t b = 0, rows = 0, splits = 0, state = 0;
};

}  // namespace culebra::cpu
