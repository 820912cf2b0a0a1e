// Ranks as threads. A rank shows the others where its bytes lie, they copy them, and it goes on when all have. Few
// bytes it leaves with the group instead and goes on at once, as MPI does: else a rank whose query is on its way to
// another would wait there for what it has nothing to do with.

#include "backends/ring/local_communicator.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace contexture {
namespace {

/// Up to so many bytes are left with the group.
constexpr size_t kLeft = 64 << 10;

void copy(std::span<const std::byte> from, std::span<std::byte> to, size_t rank) {
  if (from.size() != to.size()) {
    fail("rank {} gives {} bytes where {} are expected: the ranks do not agree on a length", rank, from.size(),
         to.size());
  }
  if (!from.empty()) std::memcpy(to.data(), from.data(), from.size());
}

/// What the ranks share.
class LocalGroup {
 public:
  explicit LocalGroup(int ranks) : shown_(static_cast<size_t>(ranks)), sent_(static_cast<size_t>(ranks)) {
    for (Sent& sent : sent_) sent.left.resize(kLeft);
    if (shown_.size() <= std::thread::hardware_concurrency()) spin_ = std::chrono::milliseconds(2);
  }

  /// Of one rank for all: `spans` is one that all may read, or one for each.
  using Shown = std::span<const std::span<const std::byte>>;

  /// Shows the others what is mine, lets `read` look at what all show, and returns when all have looked.
  template <class Read>
  void collective(const Communicator& of, Shown mine, const Read& read) {
    std::unique_lock lock(mutex_);
    shown_[static_cast<size_t>(of.rank())] = mine;
    meet(lock, of.patience());
    while_others_keep_still(lock, [&] { read(std::span<const Shown>(shown_)); });
    meet(lock, of.patience());
  }

  void send(const Communicator& of, std::span<const std::byte> bytes) {
    std::unique_lock lock(mutex_);
    Sent& sent = sent_[static_cast<size_t>(of.rank())];
    wait(lock, of.patience(), [&] { return !sent.waiting; });  // what was left before
    sent.is_left = bytes.size() <= kLeft;
    if (sent.is_left) {
      std::copy(bytes.begin(), bytes.end(), sent.left.begin());
      bytes = std::span<const std::byte>(sent.left).first(bytes.size());
    }
    sent.bytes = bytes;
    sent.waiting = true;
    changed_.notify_all();
  }

  /// Takes what the rank before sends; false where it has not sent yet and this is not to wait.
  bool receive(const Communicator& of, std::span<std::byte> bytes, bool waits) {
    std::unique_lock lock(mutex_);
    const size_t from = static_cast<size_t>(of.previous());
    Sent& sent = sent_[from];
    if (!sent.waiting && !waits) return false;
    wait(lock, of.patience(), [&] { return sent.waiting; });
    const std::span<const std::byte> source = sent.bytes;
    while_others_keep_still(lock, [&] { copy(source, bytes, from); });
    sent.waiting = false;
    changed_.notify_all();
    return true;
  }

  /// Until nobody will read what this rank sent where it lies.
  void wait_until_taken(const Communicator& of) {
    std::unique_lock lock(mutex_);
    const Sent& sent = sent_[static_cast<size_t>(of.rank())];
    wait(lock, of.patience(), [&] { return sent.is_left || !sent.waiting; });
  }

  void fail_all(const std::exception_ptr& error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    changed_.notify_all();
  }
  const std::exception_ptr& error() const { return error_; }

 private:
  struct Sent {
    std::span<const std::byte> bytes;
    std::vector<std::byte> left;
    bool is_left = false, waiting = false;
  };

  /// Returns when all ranks are here.
  void meet(std::unique_lock<std::mutex>& lock, std::chrono::seconds patience) {
    const uint64_t meeting = meetings_;
    if (++here_ == shown_.size()) {
      here_ = 0;
      ++meetings_;
      changed_.notify_all();
      return;
    }
    wait(lock, patience, [&] { return meetings_ != meeting; });
  }

  /// Threads give way for a while before they sleep: mostly what they wait for is microseconds away, and to be woken
  /// takes longer than a layer's attention to a short context. Where ranks share cores, they sleep soon.
  template <class Condition>
  void wait(std::unique_lock<std::mutex>& lock, std::chrono::seconds patience, const Condition& condition) {
    const auto start = std::chrono::steady_clock::now();
    while (!condition() && !error_ && std::chrono::steady_clock::now() - start < spin_) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
    changed_.wait_for(lock, patience, [&] { return condition() || error_; });
    if (condition() && !error_) return;
    if (!error_) {
      error_ =
          std::make_exception_ptr(Error(fmt::format("a rank waited {} s for another and gave up", patience.count())));
      changed_.notify_all();
    }
    leave(lock);
  }

  /// Reads what others show, without the lock: nobody whose bytes may be read leaves meanwhile.
  template <class Read>
  void while_others_keep_still(std::unique_lock<std::mutex>& lock, const Read& read) {
    if (error_) leave(lock);
    ++reading_;
    lock.unlock();
    std::exception_ptr error;
    try {
      read();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    --reading_;
    changed_.notify_all();
    if (!error) return;
    if (!error_) error_ = error;
    leave(lock);
  }

  /// Ends a call of a rank after a failure, when nobody reads its bytes any more.
  [[noreturn]] void leave(std::unique_lock<std::mutex>& lock) {
    changed_.wait(lock, [&] { return reading_ == 0; });
    throw Error("another rank has failed");
  }

  std::chrono::nanoseconds spin_ = std::chrono::microseconds(50);
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Shown> shown_;
  std::vector<Sent> sent_;
  size_t here_ = 0, reading_ = 0;
  uint64_t meetings_ = 0;
  std::exception_ptr error_;
};

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(int rank, int ranks, std::chrono::seconds patience, LocalGroup& group)
      : Communicator(rank, ranks, patience), group_(group) {}

  void progress() override {
    if (!received_) received_ = group_.receive(*this, receive_, /*waits=*/false);
  }

 private:
  void do_start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) override {
    receive_ = receive;
    received_ = false;
    group_.send(*this, send);
  }

  void do_finish_exchange() override {
    if (!received_) received_ = group_.receive(*this, receive_, /*waits=*/true);
    group_.wait_until_taken(*this);
  }

  void do_all_to_all(std::span<const std::span<const std::byte>> send,
                     std::span<const std::span<std::byte>> receive) override {
    group_.collective(*this, send, [&](std::span<const LocalGroup::Shown> all) {
      for (size_t r = 0; r < all.size(); ++r) {
        if (static_cast<int>(r) != rank()) copy(all[r][static_cast<size_t>(rank())], receive[r], r);
      }
    });
  }

  std::vector<std::vector<std::byte>> do_all_gather(std::span<const std::byte> mine) override {
    std::vector<std::vector<std::byte>> gathered;
    group_.collective(*this, {&mine, 1}, [&](std::span<const LocalGroup::Shown> all) {
      for (const LocalGroup::Shown& shown : all) gathered.emplace_back(shown[0].begin(), shown[0].end());
    });
    return gathered;
  }

  void do_broadcast(int from, std::span<std::byte> bytes) override {
    const std::span<const std::byte> mine = bytes;
    group_.collective(*this, {&mine, 1}, [&](std::span<const LocalGroup::Shown> all) {
      if (from != rank()) copy(all[static_cast<size_t>(from)][0], bytes, static_cast<size_t>(from));
    });
  }

  LocalGroup& group_;
  std::span<std::byte> receive_;
  bool received_ = true;
};

}  // namespace

void run_local_ranks(int ranks, const std::function<void(Communicator&)>& body, std::chrono::seconds patience) {
  LocalGroup group(ranks);
  const auto run = [&](int rank) {
    try {
      LocalCommunicator communicator(rank, ranks, patience, group);
      body(communicator);
    } catch (...) {
      group.fail_all(std::current_exception());
    }
  };
  std::vector<std::thread> others;
  try {
    for (int rank = 1; rank < ranks; ++rank) others.emplace_back(run, rank);
  } catch (const std::system_error&) {
    group.fail_all(
        std::make_exception_ptr(Error(fmt::format("this machine does not start {} threads; ask for fewer", ranks))));
  }
  run(0);
  for (std::thread& thread : others) thread.join();
  if (group.error()) std::rethrow_exception(group.error());
}

}  // namespace contexture
