// What nccl.cc calls of NCCL, for one process: it writes down each call, refuses handles and orders that NCCL would, and fails when told to.
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

#define FAKE extern "C" __attribute__((visibility("default")))

namespace {

struct Id {
  char internal[128];
};
struct Comm {
  int rank, ranks;
};
std::mutex mutex;
std::string log, failing;
int groups = 0;
constexpr int kInvalidArgument = 4, kInvalidUsage = 5;

template <class... A>
int called(const char* name, const char* format, A... arguments) {
  char text[256];
  std::snprintf(text, sizeof text, format, arguments...);
  log += std::string(name) + text + "\n";
  return failing == name ? 3 : 0;
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int fake_nccl_live = 0;
}
// What was called since the last time; the next calls of that name fail ("": none).
FAKE const char* fake_nccl_log(const char* fail) {
  static std::string taken;
  std::lock_guard<std::mutex> lock(mutex);
  taken.swap(log);
  log.clear();
  failing = fail;
  return taken.c_str();
}

FAKE int ncclGetUniqueId(Id* id) {
  std::lock_guard<std::mutex> lock(mutex);
  for (int i = 0; i < 128; ++i) id->internal[i] = static_cast<char>(i + 1);
  return called("GetUniqueId", "");
}
FAKE int ncclCommInitRank(Comm** comm, int ranks, Id id, int rank) {
  std::lock_guard<std::mutex> lock(mutex);
  for (int i = 0; i < 128; ++i)
    if (id.internal[i] != static_cast<char>(i + 1)) return kInvalidArgument;
  if (const int failed = called("CommInitRank", " %d of %d", rank, ranks)) return failed;
  *comm = new Comm{rank, ranks};
  ++fake_nccl_live;
  return 0;
}
FAKE int ncclCommDestroy(Comm* comm) {
  std::lock_guard<std::mutex> lock(mutex);
  --fake_nccl_live;
  const int rank = comm->rank;
  delete comm;
  return called("CommDestroy", " %d", rank);
}
FAKE int ncclCommAbort(Comm* comm) {
  std::lock_guard<std::mutex> lock(mutex);
  --fake_nccl_live;
  const int rank = comm->rank;
  delete comm;
  return called("CommAbort", " %d", rank);
}
FAKE int ncclGroupStart() {
  std::lock_guard<std::mutex> lock(mutex);
  if (const int failed = called("GroupStart", "")) return failed;
  ++groups;
  return 0;
}
FAKE int ncclGroupEnd() {
  std::lock_guard<std::mutex> lock(mutex);
  if (groups-- == 0) return kInvalidUsage;
  return called("GroupEnd", "");
}
// Outside of a group a send would wait for a receive that was not called yet.
FAKE int ncclSend(const void* from, size_t count, int type, int peer, Comm* comm, void* stream) {
  std::lock_guard<std::mutex> lock(mutex);
  if (groups != 1 || type != 0) return kInvalidUsage;
  if (peer < 0 || peer >= comm->ranks) return kInvalidArgument;
  return called("Send", " %p %zu to %d on %p", from, count, peer, stream);
}
FAKE int ncclRecv(void* to, size_t count, int type, int peer, Comm* comm, void* stream) {
  std::lock_guard<std::mutex> lock(mutex);
  if (groups != 1 || type != 0) return kInvalidUsage;
  if (peer < 0 || peer >= comm->ranks) return kInvalidArgument;
  return called("Recv", " %p %zu of %d on %p", to, count, peer, stream);
}
FAKE const char* ncclGetErrorString(int result) { return result == 3 ? "internal error" : "another error"; }
