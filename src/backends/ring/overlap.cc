#include "backends/ring/overlap.h"

#include <time.h>

#include <algorithm>
#include <mutex>
#include <random>
#include <thread>

#include "backends/ring/local_communicator.h"
#include "backends/ring/ring_attention.h"

namespace contexture {
namespace {

constexpr AttentionShape kShape{.heads = 4, .kv_heads = 2, .head_dim = 32, .scale = 0.2f};

/// Processor seconds of this thread.
double seconds_of_thread() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Token p is rank p mod N's: so all ranks have as much to do in every step.
Overlap measure_once(const OverlapCase& slow) {
  Overlap result;
  std::mutex mutex;
  run_local_ranks(static_cast<int>(slow.ranks), [&](Communicator& fast) {
    SlowNetwork ranks(fast, slow.latency, slow.bandwidth);
    const size_t queries = slow.new_tokens / slow.ranks, held = (slow.new_tokens + slow.cached_tokens) / slow.ranks;
    const size_t row = kShape.kv_heads * kShape.head_dim;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    std::vector<float> q(queries * kShape.heads * kShape.head_dim), kv(held * row), out(q.size());
    for (std::vector<float>* values : {&q, &kv}) {
      for (float& value : *values) value = normal(random);
    }
    std::vector<int64_t> positions;
    for (size_t i = 0; i < queries; ++i) {
      positions.push_back(static_cast<int64_t>(slow.cached_tokens + slow.ranks * i) + ranks.rank());
    }
    const TokenSpan span{.k_format = Format::f32,
                         .v_format = Format::f32,
                         .k = reinterpret_cast<const std::byte*>(kv.data()),
                         .v = reinterpret_cast<const std::byte*>(kv.data()),
                         .k_token_stride = row * sizeof(float),
                         .k_head_stride = kShape.head_dim * sizeof(float),
                         .v_token_stride = row * sizeof(float),
                         .v_head_stride = kShape.head_dim * sizeof(float),
                         .count = held,
                         .first_position = ranks.rank(),
                         .position_stride = static_cast<int64_t>(slow.ranks)};
    const RingSequence sequence{positions, {&span, 1}};
    RingAttention ring(ranks, {.ranks = slow.ranks,
                               .step_tokens = queries,
                               .shard_bytes = 2 * kv.size() * sizeof(float),
                               .heads = kShape.heads,
                               .head_dim = kShape.head_dim});
    ring.begin({&sequence, 1}, kShape);
    ThreadPool pool(1);
    AttentionScratch scratch(kShape, 1);
    ring.attend(slow.pass, kShape, {&sequence, 1}, q.data(), out.data(), scratch, pool);
    if (ranks.rank() != 0) return;
    const std::lock_guard lock(mutex);
    result = {.in_flight = ranks.in_flight(), .computed = ranks.computed(), .exposed = ranks.exposed()};
  });
  return result;
}

/// Operations of one rank in the steps that something travels in: all but one of N, of 1 / N² of the whole each.
double operations(const OverlapCase& slow) {
  const double n = static_cast<double>(slow.ranks), fresh = static_cast<double>(slow.new_tokens);
  const double dim = static_cast<double>(kShape.heads * kShape.head_dim);
  return 4 * fresh * (fresh + static_cast<double>(slow.cached_tokens)) * dim * (n - 1) / (n * n);
}

}  // namespace

void SlowNetwork::do_start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) {
  fast_.start_exchange(send, receive);
  begin_ = seconds_of_thread();
  taken_ = latency_ + static_cast<double>(receive.size()) / bandwidth_;
  in_flight_ += taken_;
}

void SlowNetwork::do_finish_exchange() {
  const double computed = seconds_of_thread() - begin_;
  computed_ += computed;
  if (taken_ > computed) {
    const auto stands_still = Clock::now();
    std::this_thread::sleep_for(std::chrono::duration<double>(taken_ - computed));
    exposed_ += std::chrono::duration<double>(Clock::now() - stands_still).count();
  }
  fast_.finish_exchange();
}

double bandwidth_that_hides(const OverlapCase& slow, double flops, double tokens) {
  const RingShape shape{.ranks = static_cast<double>(slow.ranks),
                        .heads = static_cast<double>(kShape.heads),
                        .kv_heads = static_cast<double>(kShape.kv_heads),
                        .element_bytes = sizeof(float),
                        .query_bytes = sizeof(float),
                        .flops = flops,
                        .bandwidth = 1};
  return (slow.pass == RingPass::kv ? hidden_kv_from(shape) : hidden_q_from(shape)) / tokens;
}

Overlap measure_overlap(const OverlapCase& slow, int tries) {
  Overlap best = measure_once(slow);
  for (int i = 1; i < tries; ++i) {
    const Overlap other = measure_once(slow);
    if (other.disturbance() < best.disturbance()) best = other;
  }
  return best;
}

double flops_of(const OverlapCase& slow, const Overlap& measured) {
  return operations(slow) / measured.computed;
}

Overlap predict_overlap(const OverlapCase& slow, double flops) {
  const double n = static_cast<double>(slow.ranks), fresh = static_cast<double>(slow.new_tokens);
  const double tokens = slow.pass == RingPass::kv ? fresh + static_cast<double>(slow.cached_tokens) : fresh;
  const double row = static_cast<double>((slow.pass == RingPass::kv ? 2 * kShape.kv_heads : kShape.heads) *
                                         kShape.head_dim * sizeof(float));
  Overlap result;
  result.in_flight = (n - 1) * (slow.latency + tokens / n * row / slow.bandwidth);
  result.computed = operations(slow) / flops;
  result.exposed = std::max(0.0, result.in_flight - result.computed);
  return result;
}

}  // namespace contexture
