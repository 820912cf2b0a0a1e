#include "backends/ring/cost_model.h"

#include <algorithm>

#include "backends/ring/sharding.h"

namespace contexture {
namespace {

double q_dim(const CostModel& m) {
  return m.heads * m.head_dim;
}

/// Operations of causal attention of one layer: two for a product and a sum, of scores and of values. A new token sees
/// all cached ones and on average half of the new ones.
double attention_flops(const CostModel& m, double new_tokens, double cached) {
  return 4 * q_dim(m) * new_tokens * (cached + new_tokens / 2);
}

/// K and V of one layer.
double kv_bytes(const CostModel& m, double tokens) {
  return tokens * 2 * m.kv_heads * m.head_dim * m.element_bytes;
}

/// Seconds of a rank's products with all weights. One row takes the time that reading the weights does.
double products(const CostModel& m, const CostCluster& c, const CostRates& r, double rows) {
  return 2 * m.parameters * (rows + half_rate_rows(m, c, r)) / (r.gemm * c.flops);
}

struct Message {
  double kv, q, all_to_all;  // s of one layer: a step of the ring, or all at once
};

Message messages(const CostModel& m, const CostCluster& c, const CostRates& r, double new_tokens, double cached) {
  const double kv = kv_bytes(m, (new_tokens + cached) / c.ranks);
  const double q = new_tokens / c.ranks * q_dim(m) * m.element_bytes;
  return {.kv = r.send_latency + kv / (r.send * c.bandwidth),
          .q = r.send_latency + q / (r.send * c.bandwidth),
          .all_to_all = r.all_to_all_latency + (c.ranks - 1) * q / (r.all_to_all * c.bandwidth)};
}

}  // namespace

CostModel llama3_405b() {
  const double layers = 126, dim = 16384, ffn = 53248;
  const double feed_forward = layers * 3 * dim * ffn, parameters = 405e9;
  return {.layers = layers,
          .heads = 128,
          .kv_heads = 8,
          .head_dim = 128,
          .parameters = parameters,
          .weight_bytes = feed_forward + 2 * (parameters - feed_forward)};
}

double half_rate_rows(const CostModel& m, const CostCluster& c, const CostRates& r) {
  return m.weight_bytes / (r.weights * c.memory_bandwidth) * r.gemm * c.flops / (2 * m.parameters);
}

PrefillCost prefill_cost(const CostModel& m, const CostCluster& c, const CostRates& r, RingPass pass, double new_tokens,
                         double cached) {
  const double attention = attention_flops(m, new_tokens, cached) / (c.ranks * r.attention * c.flops);
  const double others = kv_bytes(m, (new_tokens + cached) * (c.ranks - 1) / c.ranks);
  PrefillCost cost{.gemm = products(m, c, r, new_tokens / c.ranks),
                   .attention = m.layers * attention,
                   .others = m.layers * others / (r.others * c.memory_bandwidth)};
  if (c.ranks == 1) return cost;
  const Message message = messages(m, c, r, new_tokens, cached);
  const double send = pass == RingPass::kv ? message.kv : message.q, step = attention / c.ranks;
  cost.hidden = m.layers * (c.ranks - 1) * std::min(send, step);
  cost.exposed = m.layers * (c.ranks - 1) * std::max(0.0, send - step);
  if (pass == RingPass::q) cost.exposed += m.layers * message.all_to_all;
  return cost;
}

RingPass cheaper_pass(const CostModel& m, const CostCluster& c, const CostRates& r, double new_tokens, double cached) {
  const auto total = [&](RingPass pass) { return prefill_cost(m, c, r, pass, new_tokens, cached).total(); };
  return total(RingPass::kv) <= total(RingPass::q) ? RingPass::kv : RingPass::q;
}

double crossover(const CostModel& m, const CostCluster& c, const CostRates& r, double total) {
  const auto kv = [&](double tokens) { return cheaper_pass(m, c, r, tokens, total - tokens) == RingPass::kv; };
  double low = 1, high = total;
  if (kv(low)) return low;
  if (!kv(high)) return total + 1;
  while (high - low > 1) {
    const double middle = (low + high) / 2;
    (kv(middle) ? high : low) = middle;
  }
  return high;
}

DecodeCost decode_cost(const CostModel& m, const CostCluster& c, const CostRates& r, double depth, double sequences,
                       RingPass pass) {
  const double kv = kv_bytes(m, depth);  // of one sequence
  // Every rank computes, one after the other, what its share gives to each rank's queries; where there are fewer
  // queries than ranks, they are padded to one a rank.
  const double queries_a_block = std::max(1.0, sequences / c.ranks);
  const double op = r.attention_latency + queries_a_block * kv / c.ranks / (r.cache * c.memory_bandwidth);
  DecodeCost cost{.gemm = products(m, c, r, queries_a_block), .attention = m.layers * c.ranks * op};
  if (c.ranks == 1) return cost;
  if (pass == RingPass::kv) {
    const double shards = sequences * kv / c.ranks / (r.send * c.bandwidth);
    cost.send = m.layers * (c.ranks - 1) * std::max(0.0, r.decode_send_latency + shards - op);
    return cost;
  }
  cost.send = m.layers * (c.ranks - 1) * r.decode_send_latency;
  cost.all_to_all = m.layers * r.decode_all_to_all_latency;
  return cost;
}

RingSimulation simulate_ring(const CostModel& m, const CostCluster& c, const CostRates& r, RingPass pass,
                             size_t new_tokens, size_t cached) {
  const size_t n = static_cast<size_t>(c.ranks);
  Ownership ownership(n, 0);
  ownership.append(cached);
  ownership.append(new_tokens);
  std::vector<std::vector<OwnedRun>> held(n), queries(n);
  for (const OwnedRun& run : ownership.from(0)) {
    held[static_cast<size_t>(run.rank)].push_back(run);
    if (run.first >= static_cast<int64_t>(cached)) queries[static_cast<size_t>(run.rank)].push_back(run);
  }
  // Scores of a rank's queries over another's tokens: each query sees those at or before its position. In doubles: a
  // million tokens squared over a hundred layers is a large number.
  const auto scores = [&](size_t of, size_t over) {
    double sum = 0;
    for (const OwnedRun& q : queries[of]) {
      for (const OwnedRun& k : held[over]) {
        if (k.first > q.first) continue;  // chunks are alike or apart
        const double count = static_cast<double>(q.count);
        sum += k.first == q.first ? count * (count + 1) / 2 : count * static_cast<double>(k.count);
      }
    }
    return sum;
  };
  const auto tokens_of = [](const std::vector<OwnedRun>& runs) {
    size_t tokens = 0;
    for (const OwnedRun& run : runs) tokens += run.count;
    return tokens;
  };
  const double q_bytes = q_dim(m) * m.element_bytes;
  RingSimulation result;
  result.least_tokens = SIZE_MAX;
  std::vector<double> free_at(n, 0), waited(n, 0), work(n, 0);  // of one layer
  double sent = 0, most_visiting = 0;
  std::vector<double> bytes(n);
  for (size_t k = 0; k < n; ++k) {
    const size_t tokens = tokens_of(held[k]);
    result.most_tokens = std::max<uint64_t>(result.most_tokens, tokens);
    result.least_tokens = std::min<uint64_t>(result.least_tokens, tokens);
    bytes[k] = pass == RingPass::kv ? kv_bytes(m, static_cast<double>(tokens))
                                    : static_cast<double>(tokens_of(queries[k])) * q_bytes;
    most_visiting = std::max(most_visiting, 2 * bytes[k]);
  }
  for (size_t step = 0; step < n; ++step) {
    std::vector<double> sends(n), computed(n);
    for (size_t k = 0; k < n; ++k) {
      const size_t visitor = (k + n - step) % n;
      const double count = pass == RingPass::kv ? scores(k, visitor) : scores(visitor, k);
      work[k] += count;
      computed[k] = free_at[k] + 4 * q_dim(m) * count / (r.attention * c.flops);
      sends[k] = free_at[k] + (step + 1 < n ? r.send_latency + bytes[visitor] / (r.send * c.bandwidth) : 0);
      if (step + 1 < n) sent += bytes[visitor];
    }
    for (size_t k = 0; k < n; ++k) {  // a step ends when its attention, its sending and its receiving have
      const double arrived = std::max(sends[k], sends[(k + n - 1) % n]);
      free_at[k] = std::max(computed[k], arrived);
      waited[k] += free_at[k] - computed[k];
    }
  }
  double slowest = *std::max_element(free_at.begin(), free_at.end());
  if (pass == RingPass::q && n > 1) {
    const double returned = static_cast<double>(new_tokens) * q_bytes * (c.ranks - 1) / c.ranks;
    const double all_to_all = r.all_to_all_latency + returned / (r.all_to_all * c.bandwidth);
    slowest += all_to_all;
    for (double& w : waited) w += all_to_all;
    sent += returned * c.ranks;
  }
  double total_work = 0;
  for (const double w : work) total_work += w;
  const double most_work = *std::max_element(work.begin(), work.end());
  result.seconds = m.layers * slowest;
  result.most_exposed = m.layers * *std::max_element(waited.begin(), waited.end());
  result.work_imbalance = total_work > 0 ? most_work * c.ranks / total_work - 1 : 0;
  result.most_kv_bytes = static_cast<uint64_t>(m.layers * kv_bytes(m, static_cast<double>(result.most_tokens)));
  result.most_visiting_bytes = n > 1 ? static_cast<uint64_t>(most_visiting) : 0;
  result.sent_bytes = static_cast<uint64_t>(m.layers * sent);
  return result;
}

}  // namespace contexture
