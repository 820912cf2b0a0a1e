#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ring/selector.h"

namespace contexture {

/// What a cost is counted for.
struct CostModel {
  double layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double parameters = 0;
  double weight_bytes = 0;   // read for a decoded token
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
/// H100 (docs/context_parallel.md shows the fit): a share of the peak each, and what a layer or a message costs
/// whatever its size.
struct CostRates {
  // Prefill. Products and overhead: table 4 and the times of 1, 2 and 4 nodes. Attention: 540 of 800 teraflops, which
  // FlashAttention-3 reaches alone; left free, the fit would take more. Messages: table 5.
  double gemm = 0.625;          // of flops: products with weights
  double attention = 0.675;     // of flops
  double layer = 5.12e-3;       // s a layer: launches, small products, what nodes do among themselves
  double send = 0.52;           // of bandwidth: around the ring
  double send_latency = 40e-6;  // s
  double all_to_all = 0.98;     // of bandwidth: to all at once
  double all_to_all_latency = 224e-6;
  // Decode: table 8, but for the first two, which are assumed: no table gives them.
  double weights = 0.8;                      // of memory bandwidth: reading weights
  double all_reduces = 2 * 20e-6;            // s a layer: two among the processors of a node, which share the weights
  double cache = 0.81;                       // of memory bandwidth: reading K and V
  double attention_latency = 5e-6;           // s a query block and layer
  double decode_send_latency = 34e-6;        // s
  double decode_all_to_all_latency = 79e-6;  // s
};

/// Seconds of one forward pass over new tokens, and where they go.
struct PrefillCost {
  double gemm = 0, attention = 0, overhead = 0;
  double hidden = 0;   // communication behind attention
  double exposed = 0;  // communication that is waited for, the all-to-all included
  double total() const { return gemm + attention + overhead + exposed; }
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
  double weights = 0, all_reduces = 0, attention = 0, send = 0, all_to_all = 0;
  double total() const { return weights + all_reduces + attention + send + all_to_all; }
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
