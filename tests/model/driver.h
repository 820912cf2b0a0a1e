#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cache/cache.h"
#include "model/model.h"
#include "support/random.h"

namespace contexture {

inline std::vector<int32_t> random_tokens(size_t count, size_t vocabulary) {
  static std::mt19937 random = fresh_random();
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % vocabulary);
  return tokens;
}

/// Feeds tokens of sequences in steps of any mixture and keeps all logits of each.
class Driver {
 public:
  Driver(const Model& model, size_t sequences, size_t context, int threads, Format format = Format::f32,
         std::string_view layout = "contiguous", size_t page_tokens = 32)
      : Driver(model,
               {.layout = layout,
                .shape = model.cache_shape(format, format),
                .sequences = sequences,
                .context = context,
                .page_tokens = page_tokens},
               threads) {}

  Driver(const Model& model, const CachePlan& plan, int threads)
      : model_(model),
        cache_(make_cache(plan)),
        workspace_(model.config(), {.tokens = plan.sequences * plan.context,
                                    .logit_rows = plan.sequences * plan.context,
                                    .sequences = plan.sequences,
                                    .spans = spans_of(plan),
                                    .threads = threads}),
        pool_(threads) {
    for (float& f : workspace_.hidden.span()) f = NAN;  // nothing may be read before it is written
    for (float& f : workspace_.logits.span()) f = NAN;
  }

  struct Chunk {
    SequenceId sequence;
    std::vector<int32_t> tokens;
  };

  SequenceId create() { return cache_->create().value(); }

  /// One step over all chunks; the logits of all tokens.
  std::vector<float> step(const std::vector<Chunk>& chunks) {
    std::vector<int32_t> tokens;
    std::vector<int64_t> positions;
    std::vector<SequenceId> sequences;
    for (const Chunk& c : chunks) {
      for (const int32_t token : c.tokens) {
        positions.push_back(static_cast<int64_t>(cache_->length(c.sequence)));
        EXPECT_TRUE(cache_->append(c.sequence, 1));
        tokens.push_back(token);
        sequences.push_back(c.sequence);
      }
    }
    const std::vector<uint8_t> wants(tokens.size(), 1);
    const std::span<const float> logits =
        model_.forward({.tokens = tokens, .positions = positions, .sequences = sequences, .wants_logits = wants},
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
  const Model& model_;
  std::unique_ptr<Cache> cache_;
  Workspace workspace_;
  ThreadPool pool_;
};

}  // namespace contexture
