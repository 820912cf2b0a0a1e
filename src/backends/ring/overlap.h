#pragma once

#include <cstddef>

#include "backends/ring/communicator.h"
#include "backends/ring/selector.h"

namespace contexture {

/// Another communicator with a network of this latency and bandwidth around the ring, to see what hides behind
/// attention. What a rank computes meanwhile is counted by its own thread's clock: other programs have no part in it.
class SlowNetwork final : public Communicator {
 public:
  /// latency: s; bandwidth: B/s. `fast` must outlive this.
  SlowNetwork(Communicator& fast, double latency, double bandwidth)
      : Communicator(fast.rank(), fast.ranks(), fast.patience()),
        fast_(fast),
        latency_(latency),
        bandwidth_(bandwidth) {}
  void progress() override { fast_.progress(); }

  /// s, of all exchanges: what they take, what was computed meanwhile, and how long this rank then stood still.
  double in_flight() const { return in_flight_; }
  double computed() const { return computed_; }
  double exposed() const { return exposed_; }

 private:
  using Clock = std::chrono::steady_clock;
  void do_start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) override;
  void do_finish_exchange() override;
  void do_all_to_all(std::span<const std::span<const std::byte>> send,
                     std::span<const std::span<std::byte>> receive) override {
    fast_.all_to_all(send, receive);
  }
  std::vector<std::vector<std::byte>> do_all_gather(std::span<const std::byte> mine) override {
    return fast_.all_gather(mine);
  }
  void do_broadcast(int from, std::span<std::byte> bytes) override { fast_.broadcast(from, bytes); }

  Communicator& fast_;
  const double latency_, bandwidth_;
  double in_flight_ = 0, computed_ = 0, exposed_ = 0, taken_ = 0;
  double begin_ = 0;  // by the thread's clock
};

/// One layer of real attention over ranks in threads, on a slow network.
struct OverlapCase {
  RingPass pass = RingPass::kv;
  size_t new_tokens = 0, cached_tokens = 0;
  double latency = 0, bandwidth = 1e15;  // s, B/s
  size_t ranks = 2;
};
struct Overlap {
  double in_flight = 0, computed = 0, exposed = 0;  // s, of rank 0; the all-to-all of pass-Q is not counted
  /// Grows with what attention took longer and what was slept too long: for the least disturbed of some tries.
  double disturbance() const { return 2 * computed + exposed; }
};

/// The least disturbed of some tries: other programs only ever make it take longer.
Overlap measure_overlap(const OverlapCase& slow, int tries = 5);
/// Operations/s of one rank's attention, as Eq. 2 and Eq. 3 count them, from a measurement.
double flops_of(const OverlapCase& slow, const Overlap& measured);
/// The bandwidth (B/s) of which attention of `flops` operations/s hides all from so many tokens on: new ones (Eq. 2)
/// where K and V travel, all (Eq. 3) where Q does.
double bandwidth_that_hides(const OverlapCase& slow, double flops, double tokens);
/// What the equations say: attention of `flops` operations/s hides what it can.
Overlap predict_overlap(const OverlapCase& slow, double flops);

}  // namespace contexture
