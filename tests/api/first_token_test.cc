// Where the first token after a prompt is: at the position that the prompt's length says, at every length.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "api/language_model.h"
#include "engine/opened_model.h"
#include "model/oracle_llama.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

/// A Llama of float64 in which a token may be told that it is elsewhere.
class Misplaced final : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

  Row next_at(int32_t token, size_t position, size_t believed) {
    factor_ = static_cast<double>(believed) / static_cast<double>(position);
    Row logits = next(token);
    factor_ = 1;
    return logits;
  }

 protected:
  double frequency(size_t layer, size_t pair) override { return factor_ * LlamaOracle::frequency(layer, pair); }

 private:
  double factor_ = 1;
};

double log_probability(const std::vector<double>& logits, int32_t token) {
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit);
  return logits[static_cast<size_t>(token)] - std::log(sum);
}

/// Of the second generated token, where the first believes itself `shift` tokens too far.
double second_log_probability(const ModelFile& file, const std::vector<TokenId>& prompt,
                              const std::vector<int32_t>& generated, int shift) {
  Misplaced oracle(file);
  for (const TokenId token : prompt) (void)oracle.next(token);
  const size_t position = prompt.size(), believed = position + static_cast<size_t>(shift);
  return log_probability(oracle.next_at(generated[0], position, believed), generated[1]);
}

TEST(FirstToken, IsWhereThePromptEnds) {
  const TemporaryFile file;
  write_random_model(
      {.dim = 16, .heads = 2, .kv_heads = 1, .ffn_dim = 16, .vocabulary = 259, .tied = false, .score_gain = 3},
      file.path(), /*with_vocabulary=*/true);
  const OpenedModel opened = open_with_tokenizer(file.path());
  std::mt19937 random(1);  // texts whose answers feel where a token is, as is checked below
  // Prompts of 128, 512, 2,048, 4,096 and 8,192 tokens, with what comes before them.
  for (const size_t letters : {124, 508, 2044, 4092, 8188}) {
    if (kSanitized && letters > 508) break;  // the oracle would take minutes
    std::string text(letters, ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 26);
    const std::vector<TokenId> prompt = opened.need_tokenizer().encode(text);
    ASSERT_EQ(prompt.size(), letters + 4);
    std::vector<int32_t> generated;
    std::vector<float> said_so;
    for (const char* layout : {"contiguous", "paged"}) {
      LanguageModel model(file.path(), {.context = prompt.size() + 2,
                                        .sequences = 1,
                                        .cache = {.layout = layout, .k_format = "f32", .v_format = "f32"}});
      const Generation said =
          model.generate(text, {.max_tokens = 2, .sampling = {.temperature = 0}, .ignore_end = true});
      ASSERT_EQ(said.token_ids.size(), 2u);
      if (said_so.empty()) generated = said.token_ids, said_so = said.log_probabilities;
      EXPECT_EQ(said.token_ids, generated) << layout;
      EXPECT_EQ(said.log_probabilities, said_so) << layout;
    }
    const double right = second_log_probability(opened.file, prompt, generated, 0);
    // float32 through two layers whose scores are large; a token elsewhere is ten times as far away.
    EXPECT_NEAR(said_so[1], right, 1e-4) << prompt.size();
    for (const int shift : {-1, 1}) {
      if (prompt.size() > 2048 && shift < 0) continue;  // the oracle takes its time
      const double wrong = second_log_probability(opened.file, prompt, generated, shift);
      EXPECT_GT(std::fabs(wrong - right), 1e-3) << "this test would not feel it";
    }
  }
}

}  // namespace
}  // namespace contexture
