// The copy engine (cp.async.bulk): runs of bytes and tiles of tensors land when no thread can go on without them. Until then their
// destination holds poison.
#include <cinttypes>
#include <cstring>

#include "abi/status.h"
#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

constexpr uint32_t kMaxBytes = (1 << 20) - 1;

// The part of one row of a box that lies inside the tensor: f(bytes from the row's begin, source, bytes).
template <class F>
void inside(const TensorTile& tile, int row, F&& f) {
  const TensorMapRequest& tensor = tile.tensor;
  int64_t offset = 0;
  for (int i = 1, rest = row; i < tensor.rank; rest /= tensor.box[i++]) {
    const int64_t at = int64_t{tile.at[i]} + rest % tensor.box[i];
    if (at < 0 || at >= tensor.extent[i]) return;
    offset += at * tensor.stride_bytes[i - 1];
  }
  const int64_t begin = std::max<int64_t>(tile.at[0], 0);
  const int64_t end = std::min<int64_t>(int64_t{tile.at[0]} + tensor.box[0], tensor.extent[0]);
  if (begin >= end) return;
  const int64_t size = tensor.element_bytes;
  f(static_cast<size_t>((begin - tile.at[0]) * size), static_cast<const char*>(tensor.data) + offset + begin * size,
    static_cast<size_t>((end - begin) * size));
}

int rows(const TensorMapRequest& tensor) { return tensor.box[1] * (tensor.rank == 3 ? tensor.box[2] : 1); }
uint32_t row_bytes(const TensorMapRequest& tensor) {
  return static_cast<uint32_t>(tensor.box[0] * tensor.element_bytes);
}

void write(char* destination, const BulkCopy& copy) {
  if (copy.source) {
    std::memcpy(destination, copy.source, copy.bytes);
    return;
  }
  const TensorMapRequest& tensor = copy.tile.tensor;
  const uint32_t pitch = row_bytes(tensor);
  char line[512];
  for (int row = 0; row < rows(tensor); ++row, destination += pitch) {
    std::memset(line, 0, pitch);
    inside(copy.tile, row, [&](size_t at, const char* source, size_t bytes) { std::memcpy(line + at, source, bytes); });
    // 16-byte pieces change places within a row of 128 bytes; the tile is aligned to eight rows.
    const int turn = tensor.swizzle == Swizzle::bytes_128 ? row % 8 : 0;
    for (uint32_t piece = 0; piece < pitch / 16; ++piece)
      std::memcpy(destination + 16 * (piece ^ static_cast<uint32_t>(turn)), line + 16 * piece, 16);
  }
}

void issue(BulkCopy copy, uint32_t alignment) {
  Thread& self = *copy.issuer;
  Block& block = *self.block;
  const Site& site = copy.site;
  char* const destination = shared_bytes(block, copy.destination, copy.bytes, alignment, site);
  const Mbarrier& barrier = mbarrier_at(self, copy.barrier, site.as(Op::mbarrier_arrive));
  if (!barrier.fenced)
    report(site, "the copy engine may not see the mbarrier: mbarrier_init_fence is missing after %s",
           barrier.site.describe());
  if (block.grid.racing) block.shadow.check_proxy_fences(block, actor(self), copy.destination, copy.bytes, site);
  if (block.grid.tracking) block.shadow.copy_issued(actor(self), copy.destination, copy.bytes, site);
  if (block.grid.config.poison) std::memset(destination, 0xff, copy.bytes);
  copy.phase = barrier.phase;
  if (block.grid.racing) copy.known = snapshot(self);
  block.grid.copies.push_back(std::move(copy));
}

}  // namespace

void bulk_copy(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier, Here here) {
  EmulatorScope scope;
  const Site site(Op::bulk_copy, here);
  scope.self.site = site;
  if (bytes == 0 || bytes % 16 || bytes > kMaxBytes)
    fail(site, "%u bytes are not a positive multiple of 16 below 2^20", bytes);
  if (reinterpret_cast<uintptr_t>(source) % 16) fail(site, "source %p is not aligned to 16 bytes", source);
  access_memory(scope.self, source, bytes, Access::read, site);
  issue({&scope.self, destination, bytes, barrier, 0, site, static_cast<const char*>(source), {}, nullptr}, 16);
}

void tensor_copy(uint32_t destination, const TensorMap& map, const int* at, int rank, uint32_t barrier, Here here) {
  EmulatorScope scope;
  const Site site(Op::tensor_copy, here);
  scope.self.site = site;
  TensorTile tile{};
  std::memcpy(&tile.tensor, &map, sizeof tile.tensor);
  const bool valid = refusal(tile.tensor).empty();
  if (!valid) fail(site, "this is no tensor map");
  if (tile.tensor.rank != rank) fail(site, "%d coordinates for a tensor of rank %d", rank, tile.tensor.rank);
  std::copy(at, at + rank, tile.at);
  for (int row = 0; row < rows(tile.tensor); ++row)
    inside(tile, row, [&](size_t, const char* source, size_t bytes) {
      access_memory(scope.self, source, bytes, Access::read, site);
    });
  const uint32_t bytes = row_bytes(tile.tensor) * static_cast<uint32_t>(rows(tile.tensor));
  issue({&scope.self, destination, bytes, barrier, 0, site, nullptr, tile, nullptr},
        tile.tensor.swizzle == Swizzle::bytes_128 ? 1024 : 128);
}

TensorMap make_tensor_map(const TensorMapRequest& request) {
  if (const std::string why = refusal(request); !why.empty()) throw Refusal(CUL_INTERNAL, "simt: tensor map: " + why);
  TensorMap map{};
  static_assert(sizeof request <= sizeof map);
  std::memcpy(&map, &request, sizeof request);
  return map;
}

void land_copy(Grid& grid, size_t choice) {
  const auto chosen = grid.copies.begin() + static_cast<ptrdiff_t>(choice);
  const BulkCopy copy = std::move(*chosen);
  grid.copies.erase(chosen);

  Thread* const running = current.thread;
  current.thread = copy.issuer;  // whom findings name
  Block& block = *copy.issuer->block;
  Mbarrier& barrier = block.mbarriers.at(copy.barrier);
  write(block.arena + copy.destination, copy);
  if (barrier.phase != copy.phase)
    report(copy.site, "the mbarrier's phase was complete before these %u bytes had landed: too few were announced",
           copy.bytes);
  if (grid.tracking) {
    const Actor unit{block.linear, ++barrier.landings, barrier.unit, copy.known.get()};
    block.shadow.copy_landed(unit, copy.destination, copy.bytes, copy.site);
  }
  if (grid.racing) barrier.arriving.threads[barrier.unit] = barrier.landings;
  barrier.bytes -= copy.bytes;
  settle(barrier, block);
  current.thread = running;
}

void check_copy_engine_idle(Block& block) {
  std::erase_if(block.grid.copies, [&](const BulkCopy& copy) {
    if (copy.issuer->block != &block) return false;
    report(copy.site, "the block ends before this copy has landed: nobody waits for its mbarrier");
    return true;
  });
  for (const auto& [address, barrier] : block.mbarriers) {
    if (barrier.bytes > 0)
      report(barrier.site, "the block ends while %" PRId64 " of the bytes announced to this mbarrier have not come",
             barrier.bytes);
    if (barrier.bytes < 0)
      report(barrier.site, "the block ends after %" PRId64 " bytes more than were announced to this mbarrier",
             -barrier.bytes);
  }
}

}  // namespace culebra::simt
