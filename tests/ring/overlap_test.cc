// Communication hides behind attention where the paper's equations say so: over ranks whose network is slowed down.

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <mutex>
#include <thread>

#include "ring/local_communicator.h"
#include "ring/ring_attention.h"
#include "support/random.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

using Clock = std::chrono::steady_clock;

/// Another communicator with a network of this latency and bandwidth around the ring.
class SlowNetwork final : public Communicator {
 public:
  SlowNetwork(Communicator& fast, double latency, double bandwidth)
      : Communicator(fast.rank(), fast.ranks()), fast_(fast), latency_(latency), bandwidth_(bandwidth) {}
  void progress() override { fast_.progress(); }

  double computed = 0;   // s between the beginning of an exchange and the wait for its end
  double in_flight = 0;  // s that the exchanges take

 private:
  void do_start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) override {
    fast_.start_exchange(send, receive);
    begin_ = Clock::now();
    taken_ = latency_ + static_cast<double>(receive.size()) / bandwidth_;
    in_flight += taken_;
  }
  void do_finish_exchange() override {
    computed += std::chrono::duration<double>(Clock::now() - begin_).count();
    std::this_thread::sleep_until(begin_ +
                                  std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(taken_)));
    fast_.finish_exchange();
  }
  void do_all_to_all(std::span<const std::span<const std::byte>> send,
                     std::span<const std::span<std::byte>> receive) override {
    fast_.all_to_all(send, receive);
  }
  std::vector<std::vector<std::byte>> do_all_gather(std::span<const std::byte> mine) override {
    return fast_.all_gather(mine);
  }
  void do_broadcast(int from, std::span<std::byte> bytes) override { fast_.broadcast(from, bytes); }

  Communicator& fast_;
  double latency_, bandwidth_, taken_ = 0;
  Clock::time_point begin_;
};

struct Overlap {
  double computed, in_flight, exposed;  // s, of rank 0
};

constexpr AttentionShape kShape{.heads = 4, .kv_heads = 2, .head_dim = 32, .scale = 0.2f};

/// One layer over two ranks: `cached` tokens that both halves of lie before `fresh` new ones.
Overlap measure(RingPass pass, size_t fresh, size_t cached, double bandwidth) {
  Overlap result = {};
  std::mutex mutex;
  std::vector<float> outputs;
  run_local_ranks(2, [&](Communicator& fast) {
    SlowNetwork ranks(fast, 0, bandwidth);
    std::mt19937 random(7);
    const size_t queries = fresh / 2, held = (fresh + cached) / 2, row = kShape.kv_heads * kShape.head_dim;
    const std::vector<float> q = random_floats(random, queries * kShape.heads * kShape.head_dim);
    const std::vector<float> kv = random_floats(random, held * row);
    std::vector<int64_t> positions;
    for (size_t i = 0; i < queries; ++i) positions.push_back(static_cast<int64_t>(cached + 2 * i) + ranks.rank());
    const TokenSpan span{.k_format = Format::f32,
                         .v_format = Format::f32,
                         .k = reinterpret_cast<const std::byte*>(kv.data()),
                         .v = reinterpret_cast<const std::byte*>(kv.data()),
                         .k_token_stride = row * 4,
                         .k_head_stride = kShape.head_dim * 4,
                         .v_token_stride = row * 4,
                         .v_head_stride = kShape.head_dim * 4,
                         .count = held,
                         .first_position = ranks.rank(),
                         .position_stride = 2};
    const RingSequence sequence{positions, {&span, 1}};
    RingAttention ring(ranks, {.ranks = 2,
                               .step_tokens = queries,
                               .shard_bytes = 2 * kv.size() * 4,
                               .heads = kShape.heads,
                               .head_dim = kShape.head_dim});
    ring.begin({&sequence, 1}, kShape);
    ThreadPool pool(1);
    AttentionScratch scratch(kShape, 1);
    std::vector<float> out(q.size());
    ring.attend(pass, kShape, {&sequence, 1}, q.data(), out.data(), scratch, pool);
    if (ranks.rank() != 0) return;
    const std::lock_guard lock(mutex);
    result = {ranks.computed, ranks.in_flight, std::max(0.0, ranks.in_flight - ranks.computed)};
    // What the wait was, but for the all-to-all of pass-Q, which is never hidden.
    const double waited = ranks.traffic().wait_seconds;
    EXPECT_TRUE(pass == RingPass::q || waited >= result.exposed * 0.99) << waited << " s, of " << result.exposed;
  });
  return result;
}

/// The least disturbed of some tries: other programs only ever make attention slower.
Overlap best(RingPass pass, size_t fresh, size_t cached, double bandwidth) {
  Overlap best = measure(pass, fresh, cached, bandwidth);
  for (int i = 0; i < 4; ++i) {
    const Overlap other = measure(pass, fresh, cached, bandwidth);
    if (other.computed < best.computed) best = other;
  }
  return best;
}

/// Times mean nothing where every access is checked.
constexpr bool kTimesMeanSomething =
#if defined(CONTEXTURE_SANITIZES_ADDRESSES) || defined(CONTEXTURE_SANITIZES_THREADS)
    false;
#else
    true;
#endif

double dim() {
  return static_cast<double>(kShape.heads * kShape.head_dim);
}

TEST(Overlap, KvHidesFromTheLengthOfEquation2On) {
  if (!kTimesMeanSomething) GTEST_SKIP();
  // C as Eq. 2 counts it: 4 · T · D · (T + P) operations in all, of which a rank computes 1 / N² in a step.
  const size_t cached = 4096;
  const Overlap calibrated = best(RingPass::kv, 1024, cached, 1e12);
  const double flops = 4 * 1024 * dim() * (1024 + cached) / 4 / calibrated.computed;
  // A bandwidth that puts the threshold at 512 new tokens.
  const RingShape shape{
      .ranks = 2, .heads = 4, .kv_heads = 2, .element_bytes = 4, .query_bytes = 4, .flops = flops, .bandwidth = 1};
  const double bandwidth = hidden_kv_from(shape) / 512;
  const Overlap few = best(RingPass::kv, 64, cached, bandwidth), many = best(RingPass::kv, 2048, cached, bandwidth);
  std::fprintf(stderr, "64 new: %.1f ms in flight, %.1f exposed; 2,048 new: %.1f ms in flight, %.1f exposed\n",
               1e3 * few.in_flight, 1e3 * few.exposed, 1e3 * many.in_flight, 1e3 * many.exposed);
  EXPECT_GT(few.exposed, 0.5 * few.in_flight);    // by the equation 7/8 of it are
  EXPECT_LT(many.exposed, 0.1 * many.in_flight);  // none
}

TEST(Overlap, QHidesFromTheContextOfEquation3On) {
  if (!kTimesMeanSomething) GTEST_SKIP();
  const Overlap calibrated = best(RingPass::q, 256, 8192 - 256, 1e12);
  const double flops = 4 * 256 * dim() * 8192 / 4 / calibrated.computed;
  const RingShape shape{
      .ranks = 2, .heads = 4, .kv_heads = 2, .element_bytes = 4, .query_bytes = 4, .flops = flops, .bandwidth = 1};
  const double bandwidth = hidden_q_from(shape) / 2048;
  const Overlap little = best(RingPass::q, 256, 0, bandwidth), much = best(RingPass::q, 256, 8192, bandwidth);
  std::fprintf(stderr, "256 tokens: %.1f ms in flight, %.1f exposed; 8,448: %.1f ms in flight, %.1f exposed\n",
               1e3 * little.in_flight, 1e3 * little.exposed, 1e3 * much.in_flight, 1e3 * much.exposed);
  EXPECT_GT(little.exposed, 0.5 * little.in_flight);
  EXPECT_LT(much.exposed, 0.1 * much.in_flight);
}

}  // namespace
}  // namespace contexture
