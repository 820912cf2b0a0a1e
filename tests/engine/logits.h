#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/runtime.h"
#include "support/random.h"

namespace contexture {

/// Logits after every token, with an f32 cache.
inline std::vector<float> logits_of(const std::string& path, const std::vector<TokenId>& tokens) {
  const ModelFile file = open_model(path);
  RunOptions options;
  options.cache.context = tokens.size();
  options.cache.shape.k_format = options.cache.shape.v_format = Format::f32;
  options.logit_rows = tokens.size();
  Runtime runtime(file, options);
  const SequenceId sequence = runtime.cache().create().value();
  EXPECT_TRUE(runtime.cache().append(sequence, tokens.size()));
  std::vector<int64_t> positions(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) positions[i] = static_cast<int64_t>(i);
  const std::vector<SequenceId> sequences(tokens.size(), sequence);
  const std::vector<uint8_t> wants(tokens.size(), 1);
  const std::span<const float> logits =
      runtime.model().forward({.tokens = tokens, .positions = positions, .sequences = sequences, .wants_logits = wants},
                              runtime.cache(), runtime.workspace(), runtime.pool());
  return {logits.begin(), logits.end()};
}

inline std::vector<TokenId> random_tokens(size_t count, size_t vocabulary) {
  std::mt19937 random = fresh_random();
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>(random() % vocabulary);
  return tokens;
}

}  // namespace contexture
