// A real trained model against figures that a separate float64 program computed once
// (../shared/data/stories260k/golden.json, by NumPy; see that folder's README).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "files/model_file.h"
#include "model/transformer.h"

namespace contexture {
namespace {

const std::string folder = "../shared/data/stories260k/";

TEST(Stories260K, GreedyIdsAreTheReferences) {
  if (!std::filesystem::exists(folder + "golden.json")) GTEST_SKIP() << "no " << folder << "golden.json here";
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(folder + "golden.json"));
  const std::vector<int32_t> ids = golden["greedy_ids"];
  const ModelFile file = open_model(folder + "stories260K.bin");
  const Transformer model(file);
  const size_t vocabulary = model.config().vocabulary;

  const auto cache =
      make_cache({.shape = model.cache_shape(Format::f32, Format::f32), .sequences = 1, .context = ids.size()});
  Workspace workspace(model.config(), {.tokens = 1, .threads = 2});
  ThreadPool pool(2);
  const SequenceId sequence = *cache->create();
  std::vector<int32_t> chosen = {ids[0]};
  double worst = 0;
  size_t checked = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(cache->append(sequence, 1));
    const int64_t position = static_cast<int64_t>(i);
    const uint8_t wants = 1;
    const std::span<const float> logits = model.forward({.tokens = {&chosen.back(), 1},
                                                         .positions = {&position, 1},
                                                         .sequences = {&sequence, 1},
                                                         .wants_logits = {&wants, 1}},
                                                        *cache, workspace, pool);
    ASSERT_EQ(logits.size(), vocabulary);
    const std::string key = std::to_string(i);
    if (golden["logits"].contains(key)) {
      const nlohmann::json& want = golden["logits"][key];
      const std::vector<double> first = want["first16"];
      for (size_t j = 0; j < first.size(); ++j) worst = std::max(worst, std::fabs(first[j] - logits[j]));
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      worst = std::max(worst, std::fabs(std::log(sum) - static_cast<double>(want["logsumexp"])));
      ++checked;
    }
    chosen.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  chosen.pop_back();  // follows the last of the reference's ids
  EXPECT_EQ(chosen, ids);
  EXPECT_EQ(checked, golden["logits"].size());
  EXPECT_GT(checked, 0u);
  EXPECT_LT(worst, 1e-4);
  RecordProperty("worst_logit_error", std::to_string(worst));
}

}  // namespace
}  // namespace contexture
