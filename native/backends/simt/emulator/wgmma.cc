// wgmma: a warp computes its 16 rows of a warpgroup's product when it waits for it. Until then its accumulators hold poison.
#include <cstring>

#include "backends/simt/emulator/warp.h"
#include "device/numeric.h"

namespace culebra::simt {
namespace {

constexpr uint32_t kFullWarp = 0xffffffffu;
constexpr uint32_t kPoison = 0x7fbadbadu;  // a NaN, and far from any small integer
constexpr size_t kRememberedWrites = 64;
constexpr int kRows = 16, kStepBytes = 32;  // of a warp; of k

WarpProducts& products_of(Thread& self) {
  Warp& warp = self.block->warps[self.warp];
  if (!warp.products) {
    warp.products = std::make_unique<WarpProducts>();
    warp.products->unit = self.block->new_unit();
  }
  return *warp.products;
}

RegisterWatch& registers_of(Thread& self) {
  if (!self.registers) self.registers = std::make_unique<RegisterWatch>();
  return *self.registers;
}

// ---- operands in shared memory

// 16 bytes of a row (of A; column of B) from the k on to which the descriptor points.
const char* operand_piece(Block& block, uint64_t descriptor, uint32_t row, uint32_t piece, const Actor& unit,
                          const Site& site) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  const uint32_t begin = field(0), k_stride = field(16), row_stride = field(32);
  const bool swizzled = descriptor >> 62 == 1;
  uint32_t address;
  if (swizzled) {
    address = begin + row / 8 * row_stride + row % 8 * 128 + piece * 16;
    address ^= (address >> 7 & 7) << 4;
  } else {
    address = begin + row / 8 * row_stride + row % 8 * 16 + piece * k_stride;
  }
  const char* bytes = shared_bytes(block, address, 16, 16, site);
  if (unit.known) block.shadow.check_proxy_fences(block, unit, address, 16, site);
  if (block.grid.tracking) block.shadow.access(unit, address, 16, Access::read, site);
  return bytes;
}

// 16 bytes of row k of a B of which 64 columns lie side by side: columns 8 piece to 8 piece + 7.
const char* transposed_piece(Block& block, uint64_t descriptor, uint32_t k, uint32_t piece, const Actor& unit, const Site& site) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4; };
  uint32_t address = field(0) + piece / 8 * field(16) + k / 8 * field(32) + k % 8 * 128 + piece % 8 * 16;
  address ^= (address >> 7 & 7) << 4;
  const char* bytes = shared_bytes(block, address, 16, 16, site);
  if (unit.known) block.shadow.check_proxy_fences(block, unit, address, 16, site);
  if (block.grid.tracking) block.shadow.access(unit, address, 16, Access::read, site);
  return bytes;
}

void check_descriptor(uint64_t descriptor, const Site& site) {
  const uint64_t mode = descriptor >> 62;
  if (mode > 1 || (descriptor >> 49 & 7))
    fail(site, "descriptor 0x%016llx: the emulation knows no swizzle and the 128-byte one, without a base offset",
         static_cast<unsigned long long>(descriptor));
  if (mode == 1 && (descriptor & 0x38))
    fail(site, "descriptor 0x%016llx: a swizzled tile is aligned to 1024 bytes",
         static_cast<unsigned long long>(descriptor));
}

// ---- the product

template <class Element>
struct Arithmetic {
  static constexpr int kBytes = sizeof(Element);
  using Sum = float;
  static Sum value(const char* bytes) {
    Element element;
    std::memcpy(&element, bytes, sizeof element);
    return to_float(element);
  }
};
template <>
struct Arithmetic<int8_t> {
  static constexpr int kBytes = 1;
  using Sum = uint32_t;  // wraps
  static Sum value(const char* bytes) { return static_cast<Sum>(static_cast<int8_t>(*bytes)); }
};

Accumulators& accumulators_of(const Warp& warp, const Product& product, int lane) {
  auto& all = warp.lanes[lane]->registers->accumulators;
  return *std::find_if(all.begin(), all.end(),
                       [&](const Accumulators& one) { return one.address == product.lanes[lane].d; });
}

template <class Element>
void multiply(const Product& product, Block& block, const Warp& warp, const Actor& unit) {
  using Math = Arithmetic<Element>;
  using Sum = typename Math::Sum;
  constexpr int kDepth = kStepBytes / Math::kBytes, kPieceElements = 16 / Math::kBytes;
  const int columns = product.columns;
  Sum a[kRows][kDepth], d[kRows][256];
  const auto fetch = [&](uint64_t descriptor, int row, auto&& store) {
    for (uint32_t piece = 0; piece < kStepBytes / 16; ++piece) {
      const char* bytes = operand_piece(block, descriptor, static_cast<uint32_t>(row), piece, unit, product.site);
      for (int i = 0; i < kPieceElements; ++i)
        store(static_cast<int>(piece) * kPieceElements + i, Math::value(bytes + i * Math::kBytes));
    }
  };

  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    if (product.a_in_registers)
      for (int j = 0; j < 4; ++j) {
        char bytes[4];
        std::memcpy(bytes, &product.lanes[lane].values[j], 4);
        for (int i = 0; i < 4 / Math::kBytes; ++i)
          a[g + 8 * (j % 2)][4 / Math::kBytes * (t + 4 * (j / 2)) + i] = Math::value(bytes + i * Math::kBytes);
      }
    const Accumulators& sums = accumulators_of(warp, product, lane);
    for (int j = 0; j < columns / 2; ++j) {
      Sum& sum = d[g + 8 * (j / 2 % 2)][j / 4 * 8 + 2 * t + j % 2];
      sum = 0;
      if (product.accumulate) std::memcpy(&sum, &sums.values[static_cast<size_t>(j)], 4);
    }
  }
  if (!product.a_in_registers)
    for (int row = 0; row < kRows; ++row)
      fetch(product.a, static_cast<int>(warp.lanes[0]->warp % 4) * kRows + row, [&](int k, Sum x) { a[row][k] = x; });

  for (int column = 0; column < columns; column += 8) {
    Sum b[kDepth][8];
    if (product.b_transposed) {
      for (int k = 0; k < kDepth; ++k) {
        const char* bytes = transposed_piece(block, product.b, static_cast<uint32_t>(k), static_cast<uint32_t>(column) / 8, unit, product.site);
        for (int i = 0; i < 8; ++i) b[k][i] = Math::value(bytes + i * Math::kBytes);
      }
    } else {
      for (int i = 0; i < 8; ++i) fetch(product.b, column + i, [&](int k, Sum x) { b[k][i] = x; });
    }
    for (int row = 0; row < kRows; ++row)
      for (int k = 0; k < kDepth; ++k)
        for (int i = 0; i < 8; ++i) d[row][column + i] += a[row][k] * b[k][i];
  }

  for (int lane = 0; lane < 32; ++lane) {
    Accumulators& sums = accumulators_of(warp, product, lane);
    for (int j = 0; j < columns / 2; ++j)
      std::memcpy(&sums.values[static_cast<size_t>(j)],
                  &d[lane / 4 + 8 * (j / 2 % 2)][j / 4 * 8 + 2 * (lane % 4) + j % 2], 4);
  }
}

// Results of the last product under way on an accumulator reach the registers.
void release_registers(const Product& product, Thread& thread) {
  RegisterWatch& watch = *thread.registers;
  const Product::Lane& lane = product.lanes[thread.lane];
  if (product.a_in_registers) {
    if (std::memcmp(lane.a, lane.values, sizeof lane.values) != 0)
      report(product.site, "its A registers were changed, or their variable ended, before wgmma_wait");
    const auto operand = std::find_if(watch.operands.begin(), watch.operands.end(), [&](const RegisterRange& range) {
      return range.address == reinterpret_cast<uintptr_t>(lane.a);
    });
    watch.operands.erase(operand);
  }
  const auto sums = std::find_if(watch.accumulators.begin(), watch.accumulators.end(),
                                 [&](const Accumulators& one) { return one.address == lane.d; });
  if (--sums->products) return;
  auto* const d = reinterpret_cast<char*>(lane.d);
  for (size_t i = 0; i < sums->values.size(); ++i) {
    if (std::memcmp(d + 4 * i, &kPoison, 4) != 0) {
      report(product.site, "its accumulators were written, or their variable ended, before wgmma_wait");
      break;
    }
  }
  std::memcpy(d, sums->values.data(), 4 * sums->values.size());
  watch.accumulators.erase(sums);
}

// All but the newest `groups` groups.
void complete(Warp& warp, Block& block, unsigned groups) {
  WarpProducts& products = *warp.products;
  const unsigned below = products.open_group - std::min(products.open_group, groups);
  const auto end = std::find_if(products.pending.begin(), products.pending.end(),
                                [&](const Product& product) { return product.group >= below; });
  if (end == products.pending.begin()) return;
  ++products.completions;
  for (auto product = products.pending.begin(); product != end; ++product) {
    const Actor unit{block.linear, products.completions, products.unit, product->known.get()};
    switch (product->type) {
      case ProductType::f16: multiply<half_t>(*product, block, warp, unit); break;
      case ProductType::bf16: multiply<bfloat16_t>(*product, block, warp, unit); break;
      case ProductType::e4m3: multiply<float8_e4m3_t>(*product, block, warp, unit); break;
      case ProductType::s8: multiply<int8_t>(*product, block, warp, unit); break;
    }
    for (Thread* thread : warp.lanes) release_registers(*product, *thread);
  }
  products.pending.erase(products.pending.begin(), end);
  if (!block.grid.racing) return;
  Clock complete;
  complete.threads.resize(products.unit + size_t{1});
  complete.threads[products.unit] = products.completions;
  Lesson lesson;
  lesson.set(block.linear, complete);
  for (Thread* thread : warp.lanes) lesson.learn(*thread);
}

// ---- issue

// Warps of a warpgroup issue the same instructions in the same order.
void check_warpgroup(const Product& product, Thread& self) {
  Block& block = *self.block;
  auto& calls = block.warpgroup_calls[self.warp / 4];
  const unsigned number = block.warps[self.warp].products->issued++;
  const auto call =
      std::find_if(calls.begin(), calls.end(), [&](const WarpgroupCall& one) { return one.number == number; });
  if (call == calls.end()) {
    calls.push_back({number, 1, product});
    return;
  }
  if (!call->instruction.same_instruction(product))
    report(product.site, "another warp of the warpgroup issues %s%s instead", call->instruction.site.describe(),
           call->instruction.site.same_place(product.site) ? " with other operands" : "");
  if (++call->warps == 4) calls.erase(call);
}

void issue(Meeting& meeting, Block& block) {
  const auto argument = [&](int lane) -> const Product& { return *static_cast<Product*>(meeting.arguments[lane]); };
  Product product = argument(0);
  for (int lane = 0; lane < 32; ++lane) {
    product.lanes[lane] = argument(lane).lanes[0];
    if (!product.same_instruction(argument(lane))) report(meeting.site, "lane %d has other operands than lane 0", lane);
  }
  Thread& self = *current.thread;
  WarpProducts& products = products_of(self);
  product.group = products.open_group;
  Thread& first = *block.warps[self.warp].lanes[0];
  if (block.grid.racing) product.known = snapshot(first);
  products.pending.push_back(product);
  check_warpgroup(product, self);
}

void take_registers(Thread& self, const Product& product) {
  RegisterWatch& watch = registers_of(self);
  const Product::Lane& lane = product.lanes[0];
  const Site& site = product.site;
  const size_t bytes = static_cast<size_t>(product.columns) / 2 * 4;
  if (!watch.fenced) report(site, "no wgmma_fence since the last wgmma_wait");
  for (const RegisterRange& range : watch.written)
    if (range.overlaps(lane.d, bytes) || (lane.a && range.overlaps(reinterpret_cast<uintptr_t>(lane.a), 16)))
      report(site, "its registers were written after the last wgmma_fence, in %s", range.site.describe());
  if (lane.a) watch.operands.push_back({reinterpret_cast<uintptr_t>(lane.a), 16, site});
  for (Accumulators& sums : watch.accumulators) {
    if (sums.address == lane.d && 4 * sums.values.size() == bytes) {
      ++sums.products;
      return;
    }
    if (RegisterRange{sums.address, 4 * sums.values.size(), site}.overlaps(lane.d, bytes))
      fail(site, "its accumulators overlap those of %s, which is under way", sums.site.describe());
  }
  Accumulators sums{lane.d, std::vector<uint32_t>(bytes / 4), 1, site};
  auto* const d = reinterpret_cast<char*>(lane.d);
  std::memcpy(sums.values.data(), d, bytes);
  for (size_t i = 0; i < bytes; i += 4) std::memcpy(d + i, &kPoison, 4);
  watch.accumulators.push_back(std::move(sums));
}

}  // namespace

void warpgroup_product(ProductType type, int columns, void* d, const uint32_t* a, uint64_t a_descriptor,
                       uint64_t b_descriptor, bool b_transposed, bool accumulate, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  const Site site(Op::wgmma, here);
  self.site = site;
  if ((self.warp / 4 + 1) * 128 > self.block->threads.size())
    fail(site, "warp %u belongs to no whole warpgroup: the block has %zu threads", self.warp,
         self.block->threads.size());
  if (!a) check_descriptor(a_descriptor, site);
  check_descriptor(b_descriptor, site);
  if (b_transposed && ((type != ProductType::f16 && type != ProductType::bf16) || b_descriptor >> 62 != 1))
    fail(site, "a transposed B is of 16-bit elements, swizzled");
  Product product{};
  product.type = type;
  product.columns = columns;
  product.accumulate = accumulate;
  product.a_in_registers = a != nullptr;
  product.b_transposed = b_transposed;
  product.a = a_descriptor;
  product.b = b_descriptor;
  product.site = site;
  product.lanes[0] = {reinterpret_cast<uintptr_t>(d), a, {}};
  if (a) std::memcpy(product.lanes[0].values, a, sizeof product.lanes[0].values);
  take_registers(self, product);
  meet(self, kFullWarp, true, &product, issue, site);
}

void wgmma_fence(Here here) {
  EmulatorScope scope;
  RegisterWatch& watch = registers_of(scope.self);
  watch.fenced = true;
  watch.written.clear();
  meet(scope.self, kFullWarp, true, nullptr, nullptr, Site(Op::wgmma_fence, here));
}

void wgmma_commit(Here here) {
  EmulatorScope scope;
  meet(
      scope.self, kFullWarp, true, nullptr, [](Meeting&, Block&) { ++products_of(*current.thread).open_group; },
      Site(Op::wgmma_commit, here));
}

void wgmma_wait(int groups, Here here) {
  EmulatorScope scope;
  meet(
      scope.self, kFullWarp, true, &groups,
      [](Meeting& meeting, Block& block) {
        products_of(*current.thread);
        complete(block.warps[current.thread->warp], block,
                 static_cast<unsigned>(*static_cast<int*>(meeting.arguments[0])));
      },
      Site(Op::wgmma_wait, here));
  registers_of(scope.self).fenced = false;
}

void reallocate_registers(int, Here here) {
  EmulatorScope scope;
  meet(scope.self, kFullWarp, true, nullptr, nullptr, Site(Op::reallocate_registers, here));
}

void watch_registers(Thread& self, uintptr_t address, size_t bytes, Access kind, const Site& site) {
  RegisterWatch& watch = *self.registers;
  const char* const what = kind == Access::read ? "read" : "write";
  for (const Accumulators& sums : watch.accumulators)
    if (RegisterRange{sums.address, 4 * sums.values.size(), site}.overlaps(address, bytes))
      report(site, "%s of the accumulators of %s, which is under way: wgmma_wait is missing", what,
             sums.site.describe());
  for (const RegisterRange& operand : watch.operands)
    if (operand.overlaps(address, bytes))
      report(site, "%s of the A registers of %s, which is under way: wgmma_wait is missing", what,
             operand.site.describe());
  if (kind == Access::read) return;
  if (watch.written.size() < kRememberedWrites) {
    watch.written.push_back({address, bytes, site});
  } else {
    watch.written[watch.oldest++ % kRememberedWrites] = {address, bytes, site};
  }
}

void check_products_complete(Block& block) {
  for (const Warp& warp : block.warps) {
    if (!warp.products || warp.products->pending.empty()) continue;
    const Product& product = warp.products->pending.front();
    report(product.site, product.group < warp.products->open_group ? "the warp ends without waiting for this product"
                                                                   : "the warp ends without committing this product");
  }
  for (const auto& [group, calls] : block.warpgroup_calls)
    if (!calls.empty())
      report(calls.front().instruction.site, "only %u of the warpgroup's four warps issue this", calls.front().warps);
}

}  // namespace culebra::simt
