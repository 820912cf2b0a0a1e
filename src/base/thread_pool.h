#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace contexture {

/// A fixed set of threads that share loops. The caller's thread is one of them. One loop at a time; loops do not nest.
/// A result must not depend on which thread runs which part: each thread has a run of parts of its own, one after the
/// other, and helps the others when it is through.
class ThreadPool {
 public:
  /// `threads` ≥ 1, the caller's included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(part, thread) for every part of [0, parts) and returns when all are done. `thread` is in
  /// [0, threads()) and no two calls run at once with the same one: it may index scratch memory. An exception is a
  /// program's mistake here: body must not throw.
  template <class Body>
  void run(size_t parts, const Body& body) {
    static_assert(std::is_invocable_v<const Body&, size_t, int>);
    run_erased(
        parts, [](const void* b, size_t part, int thread) { (*static_cast<const Body*>(b))(part, thread); }, &body);
  }

 private:
  using Call = void (*)(const void* body, size_t part, int thread);
  void run_erased(size_t parts, Call call, const void* body);
  void take_parts(int thread);
  void work(int thread);
  void stop();

  static constexpr size_t kLine = 64;  // bytes that cores hand to each other at once

  /// A thread's own parts: those of [next, end) are not taken yet. One counter for all threads would travel between
  /// their cores with every part, half a microsecond each on servers.
  struct alignas(kLine) Share {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  // The loop being run. Written by the caller before `epoch_` moves on, read by the workers after they saw it move.
  Call call_ = nullptr;
  const void* body_ = nullptr;
  std::vector<Share> shares_;                      // (threads)
  alignas(kLine) std::atomic<int> working_{0};     ///< workers that have not finished this loop
  alignas(kLine) std::atomic<uint64_t> epoch_{0};  ///< counts loops
  std::atomic<bool> stop_{false};
  std::atomic<int> parked_{0};

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

/// Cores that do work of their own: hyper-threads of one core count once. At least 1. Respects the process's affinity.
int physical_cores();

}  // namespace contexture
