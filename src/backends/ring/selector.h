#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace contexture {

/// What travels around the ring: the ranks' K and V (Alg. 2 of arXiv:2411.01783) or their Q (Alg. 3).
enum class RingPass { kv, q };
const char* name(RingPass pass);

/// What the paper's selectors know of a model and of the machines (§3.4, table 1).
struct RingShape {
  double ranks = 1;          // N
  double heads = 1;          // N_H
  double kv_heads = 1;       // N_KV
  double element_bytes = 2;  // e: of K and V
  double query_bytes = 2;    // of an element of Q: the paper's e too, but f32 in this engine
  double flops = 1;          // C: of one rank, operations/s
  double bandwidth = 1;      // BW: between two ranks, B/s
};

/// Eq. 1: the largest share of new tokens, T / (T + P), for which Q has fewer bytes than K and V.
double smaller_q_below(const RingShape& shape);
/// Eq. 2: the fewest new tokens for which passing K and V hides behind attention.
double hidden_kv_from(const RingShape& shape);
/// Eq. 3: the fewest tokens, new and cached, for which passing Q hides behind attention.
double hidden_q_from(const RingShape& shape);

/// Alg. 1: K and V travel where they hide (Eq. 2) or are smaller than Q (Eq. 1).
RingPass select_simple(const RingShape& shape, double new_tokens, double cached_tokens);
/// Alg. 5: the same, and passing Q also pays for its all-to-all (Eq. 5).
RingPass select(const RingShape& shape, double new_tokens, double cached_tokens);

/// How a run chooses: always the same, or by Alg. 5.
struct RingMode {
  std::optional<RingPass> always;  // nothing: auto
};
std::optional<RingMode> ring_mode_from_name(std::string_view name);  ///< auto, pass-kv, pass-q

}  // namespace contexture
