#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace contexture {

/// What a rank has sent and how long it stood still, counted by the communicator. What a rank keeps for itself is not
/// sent and not counted.
struct RingTraffic {
  uint64_t ring_bytes = 0;        // to the next rank: K and V, or Q
  uint64_t all_to_all_bytes = 0;  // partial results to the ranks whose queries they are of
  uint64_t small_bytes = 0;       // agreements and logits
  double wait_seconds = 0;        // in calls that wait for others
};

/// What ranks need of each other: a ring to pass shards around, and a few collective operations. Every rank makes the
/// same calls in the same order.
///
/// Everything here throws Error where a rank has failed, is gone, or does not come within patience(): no call hangs.
/// After that the communicator is of no further use.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }
  int next() const { return (rank_ + 1) % ranks_; }
  int previous() const { return (rank_ + ranks_ - 1) % ranks_; }

  /// How long a call waits for others.
  std::chrono::seconds patience() const { return patience_; }
  void set_patience(std::chrono::seconds patience) { patience_ = patience; }

  /// Begins to send to the next rank and to receive from the previous one. Both sides know the sizes; the buffers
  /// belong to the communicator until finish_exchange returns. One exchange at a time.
  void start_exchange(std::span<const std::byte> send, std::span<std::byte> receive);
  void finish_exchange();
  /// Lets an exchange get on, in the midst of other work; returns at once.
  virtual void progress() {}

  /// send[r] goes to rank r, receive[r] comes from it; (ranks) each. What a rank has for itself stays where it is.
  void all_to_all(std::span<const std::span<const std::byte>> send, std::span<const std::span<std::byte>> receive);
  /// What every rank gave, by rank; any sizes. For small things.
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine);
  /// What every rank has for one of them, which knows the sizes: receive (ranks) there, elsewhere empty spans. What it
  /// has for itself stays where it is.
  void gather(int to, std::span<const std::byte> mine, std::span<const std::span<std::byte>> receive);
  /// From one rank to all others.
  void broadcast(int from, std::span<std::byte> bytes);
  /// The same, where the sender may have nothing to say for any length of time: who receives blocks, and does not give
  /// up while the sender is there.
  void await_broadcast(int from, std::span<std::byte> bytes);
  void barrier();

  const RingTraffic& traffic() const { return traffic_; }

 protected:
  Communicator(int rank, int ranks, std::chrono::seconds patience) : rank_(rank), ranks_(ranks), patience_(patience) {}

  virtual void do_start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) = 0;
  virtual void do_finish_exchange() = 0;
  virtual void do_all_to_all(std::span<const std::span<const std::byte>> send,
                             std::span<const std::span<std::byte>> receive) = 0;
  virtual std::vector<std::vector<std::byte>> do_all_gather(std::span<const std::byte> mine) = 0;
  virtual void do_broadcast(int from, std::span<std::byte> bytes) = 0;

 private:
  template <class Call>
  auto timed(const Call& call);

  const int rank_, ranks_;
  std::chrono::seconds patience_;
  RingTraffic traffic_;
};

/// A text that one rank has, at all ranks.
std::string broadcast_text(Communicator& ranks, int from, const std::string& text);

/// Throws Error at all ranks where they do not all say the same about `what` ("the model"): it names the first rank
/// that differs from rank 0, and what both say.
void agree(Communicator& ranks, const std::string& what, const std::string& mine);

}  // namespace contexture
