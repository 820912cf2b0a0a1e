// What may not be chosen at all: tokens that have no text or end one that is not to end, what a grammar does not allow
// here, and biases, which may rule out as well.

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"
#include "sampling/processor.h"

namespace contexture {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void rule_out(std::span<float> row, std::span<const uint64_t> allowed) {
  constexpr size_t kBits = 64;
  for (size_t word = 0; word * kBits < row.size(); ++word) {
    uint64_t others = ~allowed[word];
    if (others == 0) continue;
    const std::span<float> part = row.subspan(word * kBits, std::min(kBits, row.size() - word * kBits));
    if (~others == 0) {
      std::fill(part.begin(), part.end(), kNever);
      continue;
    }
    for (; others != 0; others &= others - 1) {
      const auto bit = static_cast<size_t>(std::countr_zero(others));
      if (bit < part.size()) part[bit] = kNever;
    }
  }
}

void apply_mask(const Sampling&, const Occasion& occasion, Candidates& candidates) {
  if (!occasion.allowed.empty()) rule_out(candidates.row(), occasion.allowed);
  for (const TokenId id : occasion.banned) candidates.change(id, kNever);
}

void apply_biases(const Sampling& sampling, const Occasion&, Candidates& candidates) {
  for (const LogitBias& b : sampling.logit_bias) {
    if (static_cast<size_t>(b.id) >= candidates.size()) {
      fail("the logit bias is for token {}, and the model has {}; leave it out", b.id, candidates.size());
    }
    candidates.change(b.id, candidates.logit(static_cast<size_t>(b.id)) + b.bias);
  }
}

}  // namespace

extern const Processor kMask, kLogitBias;

const Processor kMask{"mask", Processor::Effect::changes, [](const Sampling&) { return true; }, apply_mask};

/// llama_sampler_logit_bias.
const Processor kLogitBias{"logit bias", Processor::Effect::changes,
                           [](const Sampling& s) { return !s.logit_bias.empty(); }, apply_biases};

}  // namespace contexture
