#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "contexture/contexture.h"
#include "files/model_file.h"
#include "support/random.h"
#include "support/random_model.h"
#include "support/same_generation.h"

namespace contexture {

/// A random model with a byte vocabulary, of which one token is damaged: what it is read into is not a number.
class Engines : public testing::Test {
 protected:
  static constexpr int32_t kDamaged = 258;

  void SetUp() override {
    write_random_model({.layers = 2, .vocabulary = 259, .tied = false}, file_.path(), /*with_vocabulary=*/true);
    damage();
    model_.emplace(Model::open(file_.path(), {.threads = 2}));
  }

  /// Overwrites the embedding of kDamaged with bytes that are NaN in any float format.
  void damage() const {
    size_t at = 0, bytes = 0;
    {
      const ModelFile file = open_model(file_.path());
      const StoredTensor* embedding = file.find("token_embd.weight");
      ASSERT_TRUE(embedding);
      bytes = embedding->data.size() / 259;
      at = static_cast<size_t>(embedding->data.data() - file.maps.at(0).bytes().data()) + kDamaged * bytes;
    }
    std::fstream disk(file_.path(), std::ios::in | std::ios::out | std::ios::binary);
    disk.seekp(static_cast<std::streamoff>(at));
    disk << std::string(bytes, '\xff');
    ASSERT_TRUE(disk.good());
  }

  static EngineOptions options(size_t sequences, size_t context = 200) {
    return {.context = context, .sequences = sequences, .threads = 2, .step_tokens = 48};
  }

  std::vector<int32_t> random_tokens(size_t count) {
    std::vector<int32_t> tokens(count);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random_() % kDamaged);
    return tokens;
  }

  /// A request that never chooses the damaged token.
  static Request ask(std::vector<int32_t> tokens) {
    Request request{.prompt = TokenPrompt{std::move(tokens)}};
    request.sampling.logit_bias = {{kDamaged, -std::numeric_limits<float>::infinity()}};
    return request;
  }

  Request random_request(size_t longest_prompt, size_t max_tokens) {
    Request r = ask(random_tokens(1 + random_() % longest_prompt));
    r.sampling.temperature = random_() % 3 == 0 ? 0.f : 1.f;
    r.sampling.seed = random_();
    r.limits = {.max_tokens = 1 + random_() % max_tokens, .ignore_end = random_() % 4 != 0};
    if (random_() % 4 == 0) r.limits.stop = {"a", "xyz"};
    return r;
  }

  TemporaryFile file_;
  std::optional<Model> model_;
  std::mt19937 random_ = fresh_random();
};

}  // namespace contexture
