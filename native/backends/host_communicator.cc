// Ranks of one process. An exchange is a task of each rank's stream: the task that comes last copies for all of them, since then no
// stream runs anything that touches the buffers. Nobody waits for longer than the group's limit.
#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include "backends/communicator.h"
#include "backends/host_stream.h"

#include <unistd.h>

namespace culebra {
namespace {

using Clock = std::chrono::steady_clock;

// What an id holds. The nonce tells ids of another process or another run apart, should their numbers be equal.
struct HostId {
  char magic[16];
  int64_t process, number;
  uint64_t nonce;
};
static_assert(sizeof(HostId) <= sizeof(cul_comm_id));
constexpr char kMagic[16] = "culebra ranks";

class HostGroup {
 public:
  HostGroup(int32_t backend, uint64_t nonce) : backend_(backend), nonce_(nonce) {}
  int32_t backend() const { return backend_; }
  uint64_t nonce() const { return nonce_; }

  void join(Device& device, int rank, int ranks, int timeout_ms) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (members_.empty()) members_.resize(static_cast<size_t>(ranks));
    if (members_.size() != static_cast<size_t>(ranks))
      refuse(CUL_RANGE, "cul_comm_create: ranks is %d, but another rank of this id said %zu", ranks, members_.size());
    Member& member = members_[static_cast<size_t>(rank)];
    if (member.device || member.left) refuse(CUL_RANGE, "cul_comm_create: rank %d of this id was taken before", rank);
    member.device = &device;
    member.timeout = std::chrono::milliseconds(timeout_ms);
    changed_.notify_all();
  }

  // True for the last one.
  bool leave(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    Member& member = of(rank);
    member.device = nullptr;
    member.left = true;
    changed_.notify_all();
    return std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.left; });
  }

  void abort(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (broken_.empty()) broken_ = format("rank %d aborted the group", rank);
    changed_.notify_all();
  }

  void refuse_if_broken() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!broken_.empty()) refuse(CUL_UNSUPPORTED, "all_to_all: the group has ended: %s", broken_.c_str());
  }

  // The stream that rank's exchanges are queued on, by the calling thread.
  void queued_on(int rank, HostStream& stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    of(rank).stream = stream.itself();
    of(rank).thread = std::this_thread::get_id();
  }

  // Runs on rank's stream.
  void exchange(int rank, const Exchange& what) {
    std::unique_lock<std::mutex> lock(mutex_);
    Member& me = of(rank);
    if (!broken_.empty()) throw DeviceError("all_to_all: " + broken_);
    if (me.left) throw DeviceError(format("all_to_all: rank %d left its group before this exchange", rank));
    if (me.arrived > done_) fail(format("rank %d came to an exchange while another stream of it waits in one", rank));
    me.exchange = what;
    const uint64_t number = ++me.arrived;
    if (std::all_of(members_.begin(), members_.end(), [&](const Member& m) { return m.arrived == number; })) {
      require_equal();
      copy_all();
      done_ = number;
      changed_.notify_all();
      return;
    }
    const auto limit = Clock::now() + me.timeout;
    while (done_ < number) {
      if (!broken_.empty()) throw DeviceError("all_to_all: " + broken_);
      for (size_t peer = 0; peer < members_.size(); ++peer) {
        if (members_[peer].arrived == number) {
          if (members_[peer].device && members_[peer].device->failed()) fail(format("the device of rank %zu failed", peer));
          continue;
        }
        require_hope(peer, number);
        advance(lock, members_[peer], number);
        if (done_ >= number) return;
      }
      if (Clock::now() >= limit) fail(format("rank %zu of %zu did not come to exchange %llu within %lld ms", missing(number),
                                             members_.size(), static_cast<unsigned long long>(number),
                                             static_cast<long long>(me.timeout.count())));
      changed_.wait_for(lock, kSlice);
    }
  }

 private:
  // How often a rank that waits looks if its peers' devices are well.
  static constexpr std::chrono::milliseconds kSlice{2};

  struct Member {
    Device* device = nullptr;  // while it is in the group
    bool left = false;
    std::chrono::milliseconds timeout{};
    uint64_t arrived = 0;  // exchanges that its stream has come to
    Exchange exchange;     // of the last one
    std::weak_ptr<HostStream> stream;
    std::thread::id thread;
  };
  Member& of(int rank) { return members_[static_cast<size_t>(rank)]; }

  [[noreturn]] void fail(std::string reason) {
    if (broken_.empty()) broken_ = std::move(reason);
    changed_.notify_all();
    throw DeviceError("all_to_all: " + broken_);
  }

  void require_hope(size_t peer, uint64_t number) {
    const Member& m = members_[peer];
    if (m.left) fail(format("rank %zu left the group before exchange %llu", peer, static_cast<unsigned long long>(number)));
    if (m.device && m.device->failed())
      fail(format("the device of rank %zu failed before exchange %llu", peer, static_cast<unsigned long long>(number)));
  }

  size_t missing(uint64_t number) const {
    for (size_t peer = 0; peer < members_.size(); ++peer)
      if (members_[peer].arrived < number) return peer;
    return 0;
  }

  // A peer whose stream has no worker of its own, and which this very thread drives, comes no further by waiting for it.
  void advance(std::unique_lock<std::mutex>& lock, Member& peer, uint64_t number) {
    if (peer.thread != std::this_thread::get_id()) return;
    const auto stream = peer.stream.lock();
    if (!stream) return;
    lock.unlock();
    stream->try_advance([&] {
      std::lock_guard<std::mutex> inner(mutex_);
      return done_ >= number || !broken_.empty();
    });
    lock.lock();
  }

  void require_equal() {
    const Exchange& first = members_[0].exchange;
    for (size_t r = 1; r < members_.size(); ++r) {
      const Exchange& other = members_[r].exchange;
      if (other.count != first.count)
        fail(format("rank 0 exchanges %d pairs of tensors, rank %zu %d", first.count, r, other.count));
      for (int i = 0; i < first.count; ++i)
        if (other.pairs[i].block_bytes != first.pairs[i].block_bytes)
          fail(format("rank 0 exchanges blocks of %llu bytes, rank %zu of %llu",
                      static_cast<unsigned long long>(first.pairs[i].block_bytes), r,
                      static_cast<unsigned long long>(other.pairs[i].block_bytes)));
    }
  }

  void copy_all() {
    for (size_t to = 0; to < members_.size(); ++to)
      for (int i = 0; i < members_[to].exchange.count; ++i) {
        const Exchange::Pair& target = members_[to].exchange.pairs[i];
        const uint64_t bytes = target.block_bytes;
        if (bytes == 0) continue;
        for (size_t from = 0; from < members_.size(); ++from) {
          const Exchange::Pair& source = members_[from].exchange.pairs[i];
          std::memcpy(static_cast<char*>(target.recv) + from * bytes, static_cast<const char*>(source.send) + to * bytes, bytes);
        }
        if (members_[to].device) note_host_write(*members_[to].device, target.recv, members_.size() * bytes);
      }
  }

  const int32_t backend_;
  const uint64_t nonce_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Member> members_;
  uint64_t done_ = 0;  // exchanges that are complete
  std::string broken_; // why there will be no more
};

// The groups whose ids are in use, from the making of the id until the last rank has left.
struct Groups {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<HostGroup>> by_number;
  int64_t last = 0;
};
Groups& groups() {
  static Groups& all = *new Groups;  // never destroyed: streams may outlive static objects
  return all;
}

class HostCommunicator final : public Communicator {
 public:
  HostCommunicator(Device& device, int rank, int ranks, int64_t number, std::shared_ptr<HostGroup> group)
      : Communicator(device, rank, ranks), number_(number), group_(std::move(group)) {}
  ~HostCommunicator() override {
    if (!group_->leave(rank())) return;
    std::lock_guard<std::mutex> lock(groups().mutex);
    groups().by_number.erase(number_);
  }

  void exchange(Stream& stream, const Exchange& what) override {
    group_->refuse_if_broken();
    group_->queued_on(rank(), static_cast<HostStream&>(stream));
    stream.enqueue([group = group_, rank = rank(), what] { group->exchange(rank, what); });
  }
  void abort() override { group_->abort(rank()); }

 private:
  const int64_t number_;
  const std::shared_ptr<HostGroup> group_;
};

}  // namespace

cul_comm_id host_communicator_id(const Device& device) {
  std::random_device random;
  HostId id{};
  std::memcpy(id.magic, kMagic, sizeof kMagic);
  id.process = getpid();
  id.nonce = uint64_t{random()} << 32 | random();
  Groups& all = groups();
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    id.number = ++all.last;
    all.by_number.emplace(id.number, std::make_shared<HostGroup>(device.caps().backend, id.nonce));
  }
  cul_comm_id out{};
  std::memcpy(out.bytes, &id, sizeof id);
  return out;
}

std::unique_ptr<Communicator> join_host_communicator(Device& device, int rank, int ranks, const cul_comm_id& bytes, int timeout_ms) {
  HostId id;
  std::memcpy(&id, bytes.bytes, sizeof id);
  const char* const name = backend(device.caps().backend).name;
  if (std::memcmp(id.magic, kMagic, sizeof kMagic) != 0) refuse(CUL_RANGE, "cul_comm_create: the id is none of %s", name);
  if (id.process != getpid())
    refuse(CUL_UNSUPPORTED, "cul_comm_create: the id is of process %lld; ranks of %s are streams of one process",
           static_cast<long long>(id.process), name);
  std::shared_ptr<HostGroup> group;
  {
    std::lock_guard<std::mutex> lock(groups().mutex);
    const auto it = groups().by_number.find(id.number);
    if (it != groups().by_number.end() && it->second->nonce() == id.nonce) group = it->second;
  }
  if (!group) refuse(CUL_RANGE, "cul_comm_create: the id was used up: all ranks of its group have left");
  if (group->backend() != device.caps().backend)
    refuse(CUL_DEVICE, "cul_comm_create: the id is of %s but the device of %s", backend(group->backend()).name, name);
  group->join(device, rank, ranks, timeout_ms);
  try {
    return std::make_unique<HostCommunicator>(device, rank, ranks, id.number, group);
  } catch (...) {
    group->leave(rank);
    throw;
  }
}

}  // namespace culebra
