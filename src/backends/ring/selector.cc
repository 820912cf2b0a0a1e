#include "backends/ring/selector.h"

namespace contexture {

const char* name(RingPass pass) {
  return pass == RingPass::kv ? "pass-kv" : "pass-q";
}

double smaller_q_below(const RingShape& s) {
  return 2 * s.kv_heads / s.heads * (s.element_bytes / s.query_bytes);
}

double hidden_kv_from(const RingShape& s) {
  return s.ranks * s.flops * s.kv_heads * s.element_bytes / (2 * s.heads * s.bandwidth);
}

double hidden_q_from(const RingShape& s) {
  return s.ranks * s.query_bytes * s.flops / (4 * s.bandwidth);
}

static RingPass select(const RingShape& s, double new_tokens, double cached_tokens, double miss_rate) {
  if (new_tokens >= hidden_kv_from(s)) return RingPass::kv;
  return new_tokens >= miss_rate * (new_tokens + cached_tokens) ? RingPass::kv : RingPass::q;
}

RingPass select_simple(const RingShape& s, double new_tokens, double cached_tokens) {
  return select(s, new_tokens, cached_tokens, smaller_q_below(s));
}

RingPass select(const RingShape& s, double new_tokens, double cached_tokens) {
  const double all_to_all = 4 * new_tokens * s.bandwidth / (s.ranks * s.flops * s.query_bytes);
  return select(s, new_tokens, cached_tokens, smaller_q_below(s) - all_to_all);
}

std::optional<RingMode> ring_mode_from_name(std::string_view name) {
  if (name == "auto") return RingMode{};
  if (name == "pass-kv") return RingMode{RingPass::kv};
  if (name == "pass-q") return RingMode{RingPass::q};
  return std::nullopt;
}

}  // namespace contexture
