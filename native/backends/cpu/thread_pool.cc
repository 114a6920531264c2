#include "backends/cpu/thread_pool.h"

#include <new>

#include "backends/fault.h"

namespace culebra {
namespace {

// How long a thread looks for work before it sleeps: long enough to bridge the gap between two operators, short enough
// not to take a core from the JVM. About 20 us.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void end(std::mutex& mutex, std::atomic<bool>& stop, std::condition_variable& wake, std::vector<std::thread>& workers) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    stop = true;
  }
  wake.notify_all();
  for (auto& w : workers) w.join();
}

}  // namespace

thread_local bool ThreadPool::inside_ = false;

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) {
      if (fault::strikes()) throw std::bad_alloc();
      workers_.emplace_back([this] { work(); });
    }
  } catch (...) {  // the system has no more threads: a thread that runs when it is destroyed ends the process
    end(mutex_, stop_, wake_, workers_);
    throw;
  }
}

ThreadPool::~ThreadPool() { end(mutex_, stop_, wake_, workers_); }

void ThreadPool::take_pieces() {
  inside_ = true;
  for (int64_t i; (i = next_.fetch_add(1)) < pieces_;) {
    try {
      piece_(context_, i);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }
  inside_ = false;
}

void ThreadPool::run(int64_t pieces, void* context, Piece piece) {
  std::lock_guard<std::mutex> loop(loop_mutex_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    pieces_ = pieces;
    context_ = context;
    piece_ = piece;
    failure_ = nullptr;
    next_ = 0;
    busy_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  wake_.notify_all();
  take_pieces();
  for (int i = 0; i < kSpins && busy_.load() != 0; ++i) relax();
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [&] { return busy_.load() == 0; });
  if (failure_) std::rethrow_exception(failure_);
}

void ThreadPool::work() {
  uint64_t seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && generation_.load() == seen && !stop_; ++i) relax();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || generation_.load() != seen; });
      if (stop_) return;
      seen = generation_;
    }
    take_pieces();
    if (busy_.fetch_sub(1) == 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      done_.notify_one();
    }
  }
}

}  // namespace culebra
