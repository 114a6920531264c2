// The cpu backend's parallel loops. A small pool of our own: OpenMP's runtime is opaque to thread sanitizers and fights
// with the JVM's threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace culebra {

class ThreadPool {
 public:
  // `threads` includes the calling thread: a pool of 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // f(begin, end) over disjoint pieces that cover [0, n), each of at least `grain` (but for the last one). The caller takes part and returns
  // when all pieces are done; the first exception of a piece is rethrown. Which thread runs a piece is not determined:
  // results must not depend on it. A loop inside a loop runs on the calling thread alone.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F&& f) {
    if (n <= 0) return;
    const int64_t pieces = std::min<int64_t>((n + grain - 1) / std::max<int64_t>(grain, 1), int64_t{size()} * kPiecesPerThread);
    if (pieces <= 1 || size() == 1 || inside_) {
      f(int64_t{0}, n);
      return;
    }
    struct Context {
      F* f;
      int64_t n, pieces;
    } context{&f, n, pieces};
    run(pieces, &context, [](void* opaque, int64_t piece) {
      const auto& c = *static_cast<Context*>(opaque);
      (*c.f)(c.n * piece / c.pieces, c.n * (piece + 1) / c.pieces);
    });
  }

 private:
  // More pieces than threads even out unequal ones.
  static constexpr int kPiecesPerThread = 4;
  using Piece = void (*)(void* context, int64_t piece);

  void run(int64_t pieces, void* context, Piece piece);
  void work();
  void take_pieces();

  static thread_local bool inside_;

  std::vector<std::thread> workers_;
  std::mutex loop_mutex_;  // one loop at a time: streams of one device share the pool
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};
  int64_t pieces_ = 0;
  void* context_ = nullptr;
  Piece piece_ = nullptr;
  std::exception_ptr failure_;
};

}  // namespace culebra
