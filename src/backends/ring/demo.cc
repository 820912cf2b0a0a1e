#include "backends/ring/demo.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <random>

#include "backends/ring/local_communicator.h"
#include "backends/ring/ring_attention.h"
#include "backends/ring/sharded_cache.h"

namespace contexture {
namespace {

/// Q, K and V of all tokens, and the cache that one machine would have.
struct Example {
  explicit Example(const RingDemo& demo)
      : total(demo.tokens + demo.decode_steps),
        shape{.heads = demo.heads,
              .kv_heads = demo.kv_heads,
              .head_dim = demo.head_dim,
              .scale = 1 / std::sqrt(static_cast<float>(demo.head_dim))},
        q(total * demo.heads * demo.head_dim),
        k(total * demo.kv_heads * demo.head_dim),
        v(k.size()) {
    std::mt19937 random(demo.seed);
    std::normal_distribution<float> normal;
    for (std::vector<float>* values : {&q, &k, &v}) {
      for (float& value : *values) value = normal(random);
    }
    plan.layout = "contiguous";
    plan.shape = {.layers = 1,
                  .kv_heads = demo.kv_heads,
                  .head_dim = demo.head_dim,
                  .k_format = Format::f32,
                  .v_format = Format::f32};
    plan.context = total;
    const size_t row = demo.kv_heads * demo.head_dim * sizeof(float), head = demo.head_dim * sizeof(float);
    all = {.k_format = Format::f32,
           .v_format = Format::f32,
           .k = reinterpret_cast<const std::byte*>(k.data()),
           .v = reinterpret_cast<const std::byte*>(v.data()),
           .k_token_stride = row,
           .k_head_stride = head,
           .v_token_stride = row,
           .v_head_stride = head,
           .count = total};
  }

  /// Distance of a token's attention from float64 softmax over all tokens at once.
  double error(int64_t position, const float* out) const {
    const size_t row = shape.heads * shape.head_dim;
    std::vector<double> truth(row);
    attend_plain(q.data() + static_cast<size_t>(position) * row, position, {&all, 1}, shape, truth.data());
    double most = 0;
    for (size_t d = 0; d < row; ++d) most = std::max(most, std::abs(truth[d] - static_cast<double>(out[d])));
    return most;
  }

  size_t total;
  AttentionShape shape;
  std::vector<float> q, k, v;
  CachePlan plan;
  TokenSpan all;
};

/// One rank of the example.
class DemoRank {
 public:
  DemoRank(const Example& example, Communicator& ranks)
      : example_(example),
        ranks_(ranks),
        cache_(example.plan, ranks.rank(), ranks.ranks()),
        ring_(ranks, {.ranks = static_cast<size_t>(ranks.ranks()),
                      .step_tokens = example.total,
                      .shard_bytes = 2 * example.k.size() * sizeof(float),
                      .heads = example.shape.heads,
                      .head_dim = example.shape.head_dim}),
        pool_(1),
        scratch_(example.shape, 1),
        sequence_(*cache_.create()) {}

  /// The next tokens: stores those that are this rank's, and tells their positions.
  void append(size_t tokens) {
    const size_t first = cache_.length(sequence_);
    (void)cache_.append(sequence_, tokens);
    positions_.clear();
    q_.clear();
    const size_t row = example_.shape.heads * example_.shape.head_dim;
    const size_t kv_row = example_.shape.kv_heads * example_.shape.head_dim;
    for (size_t p = first; p < first + tokens; ++p) {
      if (ownership().owner(static_cast<int64_t>(p)) != ranks_.rank()) continue;
      const Slot slot = cache_.slot(sequence_, p);
      cache_.store(0, {&slot, 1}, example_.k.data() + p * kv_row, example_.v.data() + p * kv_row);
      positions_.push_back(static_cast<int64_t>(p));
      q_.insert(q_.end(), example_.q.data() + p * row, example_.q.data() + (p + 1) * row);
    }
    spans_.clear();
    cache_.view(sequence_, spans_);
  }

  /// (tokens of this rank, heads, head_dim)
  std::vector<float> attend(RingPass pass) {
    const RingSequence sequence{positions_, spans_};
    ring_.begin({&sequence, 1}, example_.shape);
    std::vector<float> out(q_.size());
    ring_.attend(pass, example_.shape, {&sequence, 1}, q_.data(), out.data(), scratch_, pool_);
    return out;
  }

  double error(const std::vector<float>& out) const {
    double most = 0;
    for (size_t i = 0; i < positions_.size(); ++i) {
      most = std::max(most, example_.error(positions_[i], out.data() + i * out.size() / positions_.size()));
    }
    return most;
  }
  const Ownership& ownership() const { return cache_.ownership(sequence_); }

 private:
  const Example& example_;
  Communicator& ranks_;
  ShardedCache cache_;
  RingAttention ring_;
  ThreadPool pool_;
  AttentionScratch scratch_;
  SequenceId sequence_;
  std::vector<int64_t> positions_;
  std::vector<float> q_;
  std::vector<TokenSpan> spans_;
};

}  // namespace

RingDemoResult run_ring_demo(const RingDemo& demo) {
  const Example example(demo);
  const size_t n = static_cast<size_t>(demo.ranks);
  RingDemoResult result;
  result.shards = shard(0, demo.tokens, std::vector<size_t>(n, 0), 0);
  result.pass_kv.bytes_sent.resize(n);
  result.pass_q.bytes_sent.resize(n);
  result.decode.resize(demo.decode_steps);
  result.same_bits = true;
  std::mutex mutex;  // of the result
  run_local_ranks(demo.ranks, [&](Communicator& ranks) {
    DemoRank rank(example, ranks);
    rank.append(demo.tokens);
    const auto sent = [&] { return ranks.traffic().ring_bytes + ranks.traffic().all_to_all_bytes; };
    const std::vector<float> by_kv = rank.attend(RingPass::kv);
    const uint64_t kv_bytes = sent();
    const std::vector<float> by_q = rank.attend(RingPass::q);
    const uint64_t q_bytes = sent() - kv_bytes;
    {
      const std::lock_guard lock(mutex);
      const size_t me = static_cast<size_t>(ranks.rank());
      result.pass_kv.max_error = std::max(result.pass_kv.max_error, rank.error(by_kv));
      result.pass_q.max_error = std::max(result.pass_q.max_error, rank.error(by_q));
      result.pass_kv.bytes_sent[me] = kv_bytes;
      result.pass_q.bytes_sent[me] = q_bytes;
      result.same_bits &= by_kv.empty() || std::memcmp(by_kv.data(), by_q.data(), by_kv.size() * sizeof(float)) == 0;
    }
    for (RingDemoResult::DecodeStep& step : result.decode) {
      rank.append(1);
      const std::vector<float> out = rank.attend(RingPass::q);
      const std::lock_guard lock(mutex);
      const std::span<const size_t> held = rank.ownership().held();
      step.held.assign(held.begin(), held.end());
      step.owner = rank.ownership().owner(static_cast<int64_t>(rank.ownership().length()) - 1);
      step.max_error = std::max(step.max_error, rank.error(out));
    }
  });
  return result;
}

}  // namespace contexture
