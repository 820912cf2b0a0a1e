#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "backends/ring/selector.h"

namespace contexture {

/// What a cost is counted for.
struct CostModel {
  double layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double parameters = 0;
  double weight_bytes = 0;   // read in every pass, also for one token
  double element_bytes = 2;  // of Q, K and V as they travel and are held
};
/// Llama 3 405B: bf16, its feed-forward weights in 8 bits.
CostModel llama3_405b();

/// The machines: peaks of one rank.
struct CostCluster {
  double ranks = 1;
  double flops = 8 * 800e12;             // operations/s
  double bandwidth = 8 * 50e9;           // B/s to the next rank
  double memory_bandwidth = 8 * 2.4e12;  // B/s
};

/// What machines make of their peaks. The defaults are fitted on the figures of arXiv:2411.01783 for nodes of eight
/// H100 (docs/context_parallel.md shows the fit): a share of the peak each, and what a message costs whatever its size.
struct CostRates {
  // Products: their rate grows with the rows of a rank, gemm * rows / (rows + half_rate_rows()). A token decoded on one
  // node says how long reading the weights takes, table 4 and 32,768 tokens on one and two nodes the rest.
  double gemm = 0.6194;      // of flops: products of many rows
  double weights = 0.607;    // of memory bandwidth: reading weights, what products of one row take
  double attention = 0.675;  // of flops: 540 of 800 teraflops, which FlashAttention-3 reaches alone
  double others = 0.00429;   // of memory bandwidth: prefill goes through the other ranks' K and V
  // Messages of a prefill: table 5.
  double send = 0.52;           // of bandwidth: around the ring
  double send_latency = 40e-6;  // s
  double all_to_all = 0.98;     // of bandwidth: to all at once
  double all_to_all_latency = 224e-6;
  // Decode: table 8.
  double cache = 0.81;                       // of memory bandwidth: reading K and V
  double attention_latency = 5e-6;           // s a query block and layer
  double decode_send_latency = 34e-6;        // s
  double decode_all_to_all_latency = 79e-6;  // s
};

/// Rows of a rank with which products reach half of their rate: multiplying takes as long as reading the weights.
double half_rate_rows(const CostModel& model, const CostCluster& cluster, const CostRates& rates);

/// Seconds of one forward pass over new tokens, and where they go.
struct PrefillCost {
  double gemm = 0, attention = 0;
  double others = 0;   // going through what the other ranks hold
  double hidden = 0;   // communication behind attention
  double exposed = 0;  // communication that is waited for, the all-to-all included
  double total() const { return gemm + attention + others + exposed; }
};
PrefillCost prefill_cost(const CostModel& model, const CostCluster& cluster, const CostRates& rates, RingPass pass,
                         double new_tokens, double cached_tokens);
/// The cheaper one.
RingPass cheaper_pass(const CostModel& model, const CostCluster& cluster, const CostRates& rates, double new_tokens,
                      double cached_tokens);
/// The fewest new tokens of `total` from which passing K and V costs no more than passing Q; more than `total`: never.
double crossover(const CostModel& model, const CostCluster& cluster, const CostRates& rates, double total);

/// Seconds between tokens of `sequences` sequences at a depth: with ring pass-Q (Alg. 4), or if K and V travelled.
struct DecodeCost {
  double gemm = 0, attention = 0, send = 0, all_to_all = 0;
  double total() const { return gemm + attention + send + all_to_all; }
};
DecodeCost decode_cost(const CostModel& model, const CostCluster& cluster, const CostRates& rates, double depth,
                       double sequences = 1, RingPass pass = RingPass::q);

/// A prefill played through without tensors: every rank's schedule, memory and bytes, chunk by chunk. Where the cost
/// model says what the average rank does, this says what each does and waits for.
struct RingSimulation {
  double seconds = 0;                          // of attention and communication, all layers
  double most_exposed = 0;                     // s that the rank that waits longest waits
  double work_imbalance = 0;                   // most scores of a rank over the average, less 1
  uint64_t most_tokens = 0, least_tokens = 0;  // held by a rank
  uint64_t most_kv_bytes = 0;                  // K and V of all layers, at the rank that holds most
  uint64_t most_visiting_bytes = 0;            // a layer's visiting shard and the one that arrives
  uint64_t sent_bytes = 0;                     // by all ranks, all layers
};
RingSimulation simulate_ring(const CostModel& model, const CostCluster& cluster, const CostRates& rates, RingPass pass,
                             size_t new_tokens, size_t cached_tokens);

}  // namespace contexture
