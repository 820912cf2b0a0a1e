#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "base/error.h"

namespace contexture {
namespace {

// Workers spin this often for the next loop before they sleep: between two loops of one token lie microseconds, and
// waking a sleeping thread costs some tens of them. Measured in pauses, about 100 µs in all.
constexpr int spins = 2000;

/// A moment's wait, the `spun`th. Where other threads want the processor, one of them may be whom this one waits for:
/// after the first few it is offered to them, which costs little where there is none.
void pause(int spun) {
  constexpr int kFirst = 64, kEvery = 16;
#if defined(__x86_64__)
  if (spun < kFirst || spun % kEvery != 0) return __builtin_ia32_pause();
#endif
  std::this_thread::yield();
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<size_t>(threads)) {
  try {
    workers_.reserve(static_cast<size_t>(threads) - 1);
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    stop();
    fail("this machine does not start {} threads; ask for fewer with -t", threads);
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_erased(size_t parts, Call call, const void* body) {
  if (workers_.empty() || parts <= 1) {
    for (size_t part = 0; part < parts; ++part) call(body, part, 0);
    return;
  }
  call_ = call;
  body_ = body;
  const size_t threads = shares_.size();
  for (size_t i = 0; i < threads; ++i) {
    shares_[i].next.store(parts * i / threads, std::memory_order_relaxed);
    shares_[i].end = parts * (i + 1) / threads;
  }
  working_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1);  // sequentially consistent with parked_: a worker either sees the epoch or is seen parked
  if (parked_.load() > 0) {
    const std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  take_parts(0);
  for (int spun = 0; working_.load(std::memory_order_acquire) > 0; ++spun) {
    if (spun < spins) {
      pause(spun);
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::take_parts(int thread) {
  const size_t threads = shares_.size();
  for (size_t i = 0; i < threads; ++i) {
    Share& share = shares_[(static_cast<size_t>(thread) + i) % threads];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const size_t part = share.next.fetch_add(1, std::memory_order_relaxed);
      if (part < share.end) call_(body_, part, thread);
    }
  }
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  for (;;) {
    for (int spun = 0; epoch_.load(std::memory_order_acquire) == seen && spun < spins && !stop_; ++spun) pause(spun);
    if (epoch_.load() == seen) {
      std::unique_lock lock(mutex_);
      parked_.fetch_add(1);
      wake_.wait(lock, [&] { return stop_ || epoch_.load() != seen; });
      parked_.fetch_sub(1);
    }
    if (stop_) return;
    ++seen;
    take_parts(thread);
    working_.fetch_sub(1, std::memory_order_release);
  }
}

int physical_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  std::set<std::string> cores;  // the list of hyper-threads that a core shares names the core
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    std::string siblings;
    if (!(file >> siblings)) siblings = std::to_string(cpu);
    cores.insert(siblings);
  }
  return std::max<int>(1, static_cast<int>(cores.size()));
}

}  // namespace contexture
