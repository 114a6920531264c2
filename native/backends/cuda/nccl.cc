#include "backends/cuda/nccl.h"

#include <cstring>

#include "backends/cuda/driver.h"
#include "backends/graph_keeper.h"

namespace culebra::cuda {
namespace {

// The part of the library's ABI that is called; NVIDIA keeps it across the versions 2.x.
using Result = int;
constexpr Result kSuccess = 0;
constexpr int kBytes = 0;  // ncclInt8
using Comm = struct NcclCommObject*;
struct UniqueId {
  char internal[128];
};
static_assert(sizeof(UniqueId) == sizeof(cul_comm_id));

struct Functions {
  Result (*GetUniqueId)(UniqueId*);
  Result (*CommInitRank)(Comm*, int ranks, UniqueId, int rank);
  Result (*CommDestroy)(Comm);
  Result (*CommAbort)(Comm);
  Result (*GroupStart)();
  Result (*GroupEnd)();
  Result (*Send)(const void*, size_t count, int type, int peer, Comm, CUstream_st*);
  Result (*Recv)(void*, size_t count, int type, int peer, Comm, CUstream_st*);
  const char* (*GetErrorString)(Result);
};

std::string failure(const Functions& f, const char* what, Result result) {
  const char* const text = f.GetErrorString(result);
  return format("nccl%s: %s", what, text ? text : "an error without a text");
}

// Graphs hold it, too: NCCL's end of a communicator waits for the end of all graphs that recorded it (2.26 and newer).
struct Group {
  Group(Device& device, const Functions& functions, Comm comm) : device(device), f(functions), comm(comm) {}
  // To destroy it is the work of all ranks together; of a device that failed the others may wait for it forever.
  ~Group() {
    if (ended) return;
    if (device.failed()) f.CommAbort(comm);
    else f.CommDestroy(comm);
  }
  void abort() {
    if (!ended.exchange(true)) f.CommAbort(comm);
  }

  Device& device;      // of whose children one holds this
  const Functions& f;  // the process's
  const Comm comm;
  std::atomic<bool> ended{false};  // NCCL has freed it
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(Device& device, int rank, int ranks, const Functions& functions, Comm comm)
      : Communicator(device, rank, ranks), group_(std::make_shared<Group>(device, functions, comm)) {}

  // One group of NCCL's: all messages in one kernel, and no order between them that could block.
  void exchange(Stream& stream, const Exchange& what) override {
    if (group_->ended) refuse(CUL_UNSUPPORTED, "all_to_all: the group has ended: it was aborted");
    if (stream.capturing()) dynamic_cast<GraphKeeper&>(stream).keep_for_graph(group_);
    const Functions& f = group_->f;
    Result result = f.GroupStart();
    const char* failed = "GroupStart";
    const bool started = result == kSuccess;
    const auto next = [&](const char* name, auto call) {
      if (result == kSuccess && (result = call()) != kSuccess) failed = name;
    };
    for (int i = 0; i < what.count; ++i) {
      const auto& [send, recv, bytes] = what.pairs[i];
      if (bytes == 0) continue;
      for (int peer = 0; peer < ranks(); ++peer) {
        const uint64_t at = static_cast<uint64_t>(peer) * bytes;
        const char* const from = static_cast<const char*>(send) + at;
        char* const to = static_cast<char*>(recv) + at;
        next("Send", [&, n = bytes] { return f.Send(from, n, kBytes, peer, group_->comm, stream.cuda()); });
        next("Recv", [&, n = bytes] { return f.Recv(to, n, kBytes, peer, group_->comm, stream.cuda()); });
      }
    }
    if (started) {  // a group that was begun is ended, whatever happened in it
      const Result end = f.GroupEnd();
      next("GroupEnd", [&] { return end; });
    }
    if (result == kSuccess) return;
    const std::string text = "all_to_all: " + failure(f, failed, result);
    device().fail(text);
    throw DeviceError(text);
  }

  void abort() override { group_->abort(); }

 private:
  const std::shared_ptr<Group> group_;
};

class Loaded final : public Nccl {
 public:
  explicit Loaded(const Functions& functions) : f_(functions) {}

  cul_comm_id unique_id() const override {
    UniqueId id{};
    if (const Result result = f_.GetUniqueId(&id)) refuse(CUL_UNSUPPORTED, "cul_comm_unique_id: %s", failure(f_, "GetUniqueId", result).c_str());
    cul_comm_id out;
    std::memcpy(out.bytes, id.internal, sizeof out.bytes);
    return out;
  }

  std::unique_ptr<Communicator> join(Device& device, int rank, int ranks, const cul_comm_id& bytes) const override {
    UniqueId id;
    std::memcpy(id.internal, bytes.bytes, sizeof id.internal);
    Comm comm = nullptr;
    if (const Result result = f_.CommInitRank(&comm, ranks, id, rank))
      refuse(CUL_UNSUPPORTED, "cul_comm_create: rank %d of %d: %s", rank, ranks, failure(f_, "CommInitRank", result).c_str());
    return std::make_unique<NcclCommunicator>(device, rank, ranks, f_, comm);
  }

 private:
  const Functions f_;
};

}  // namespace

std::unique_ptr<Nccl> Nccl::load(std::span<const char* const> files, std::string* reason) {
  std::string names;
  void* library = nullptr;
  for (const char* file : files) {
    const char* const one[] = {file, nullptr};
    if ((library = open_library(one, &names))) break;
  }
  if (!library) {
    *reason = "NCCL was not found: " + names;
    return nullptr;
  }
  Functions f{};
  reason->clear();
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol(library, name));
    if (!function && reason->empty()) *reason = format("the NCCL library has no %s; it is too old", name);
  };
#define CUL_FIND(name) find(f.name, "nccl" #name)
  CUL_FIND(GetUniqueId);
  CUL_FIND(CommInitRank);
  CUL_FIND(CommDestroy);
  CUL_FIND(CommAbort);
  CUL_FIND(GroupStart);
  CUL_FIND(GroupEnd);
  CUL_FIND(Send);
  CUL_FIND(Recv);
  CUL_FIND(GetErrorString);
#undef CUL_FIND
  if (!reason->empty()) return nullptr;
  return std::make_unique<Loaded>(f);
}

const Nccl& nccl() {
  static std::mutex mutex;
  static const Nccl* loaded = nullptr;  // never destroyed; a refusal is not remembered: the next call tries again
  const std::lock_guard lock(mutex);
  if (!loaded) {
    static constexpr const char* kFiles[] = {"libnccl.so.2"};
    std::string reason;
    loaded = Nccl::load(kFiles, &reason).release();
    if (!loaded) refuse(CUL_UNSUPPORTED, "%s", reason.c_str());
  }
  return *loaded;
}

}  // namespace culebra::cuda
