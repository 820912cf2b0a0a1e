#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cache/cache.h"
#include "cache/layout.h"
#include "model/transformer.h"
#include "support/random.h"

namespace contexture {

inline std::vector<int32_t> random_tokens(size_t count, size_t vocabulary) {
  static std::mt19937 random = fresh_random();
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % vocabulary);
  return tokens;
}

/// The largest difference between logits and an oracle's, over the root of the mean square of the oracle's.
inline double relative_error(const std::vector<float>& logits, const std::vector<double>& expected) {
  double worst = 0, squares = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    worst = std::max(worst, std::fabs(logits[i] - expected[i]));
    squares += expected[i] * expected[i];
  }
  return worst / std::sqrt(squares / static_cast<double>(logits.size()));
}

/// Feeds tokens of sequences in steps of any mixture and keeps all logits of each.
class Driver {
 public:
  Driver(const Transformer& model, size_t sequences, size_t context, int threads, Format format = Format::f32,
         std::string_view layout = "contiguous", size_t page_tokens = 32)
      : Driver(model,
               {.layout = std::string(layout),
                .shape = model.cache_shape(format, format),
                .sequences = sequences,
                .context = context,
                .options = own_options(layout, {{"page_tokens", page_tokens}})},
               threads) {}

  Driver(const Transformer& model, const CachePlan& plan, int threads)
      : model_(model),
        cache_(make_cache(plan)),
        workspace_(model.config(), {.tokens = plan.sequences * plan.context,
                                    .logit_rows = plan.sequences * plan.context,
                                    .sequences = plan.sequences,
                                    .spans = spans_of(plan),
                                    .context = plan.context,
                                    .threads = threads}),
        pool_(threads) {
    rotation = model_.rotation_of(model_.config().context);
    for (float& f : workspace_.hidden.span()) f = NAN;  // nothing may be read before it is written
    for (float& f : workspace_.logits.span()) f = NAN;
  }

  struct Chunk {
    SequenceId sequence;
    std::vector<int32_t> tokens;
  };

  /// Of all sequences: as of a text that fills the model's context.
  RotationId rotation = 0;

  SequenceId create() { return cache_->create().value(); }

  /// One step over all chunks; the logits of all tokens.
  std::vector<float> step(const std::vector<Chunk>& chunks) {
    std::vector<int32_t> tokens;
    std::vector<int64_t> positions;
    std::vector<SequenceId> sequences;
    for (const Chunk& c : chunks) {
      const size_t first = cache_->length(c.sequence);
      EXPECT_TRUE(cache_->append(c.sequence, c.tokens.size()));
      for (size_t i = 0; i < c.tokens.size(); ++i) positions.push_back(static_cast<int64_t>(first + i));
      tokens.insert(tokens.end(), c.tokens.begin(), c.tokens.end());
      sequences.insert(sequences.end(), c.tokens.size(), c.sequence);
    }
    const std::vector<uint8_t> wants(tokens.size(), 1);
    const std::vector<RotationId> rotations(tokens.size(), rotation);
    const std::span<const float> logits = model_.forward({.tokens = tokens,
                                                          .positions = positions,
                                                          .sequences = sequences,
                                                          .wants_logits = wants,
                                                          .rotations = rotations},
                                                         *cache_, workspace_, pool_);
    return {logits.begin(), logits.end()};
  }

  std::vector<float> in_chunks(const std::vector<int32_t>& tokens, size_t chunk) {
    const SequenceId sequence = create();
    std::vector<float> all;
    for (size_t at = 0; at < tokens.size(); at += chunk) {
      const size_t end = std::min(tokens.size(), at + chunk);
      const std::vector<float> logits = step(
          {{sequence, {tokens.begin() + static_cast<ptrdiff_t>(at), tokens.begin() + static_cast<ptrdiff_t>(end)}}});
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

 private:
  const Transformer& model_;
  std::unique_ptr<Cache> cache_;
  Workspace workspace_;
  ThreadPool pool_;
};

}  // namespace contexture
