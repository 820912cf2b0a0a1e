#include <gtest/gtest.h>
#include <malloc.h>

#include <filesystem>

#include "base/error.h"
#include "contexture/contexture.h"
#include "engine/runtime.h"
#include "support/random_model.h"

namespace contexture {
namespace {

/// A random model with a byte vocabulary on the disk.
class Generate : public testing::Test {
 protected:
  void SetUp() override { write_random_model({.vocabulary = 259}, file_.path(), /*with_vocabulary=*/true); }
  LanguageModel load(size_t context = 0) {
    return LanguageModel({.model_path = file_.path(), .threads = 2, .context = context});
  }
  TemporaryFile file_;
};

TEST_F(Generate, SameSeedSameTextAndCallbacksSeeAllOfIt) {
  LanguageModel model = load();
  std::string streamed;
  std::vector<int32_t> ids;
  const GenerateOptions options{.max_tokens = 40, .seed = 11, .ignore_end = true};
  const Generation first = model.generate("abc", options, [&](const GeneratedToken& t) {
    streamed += t.text;
    if (t.id >= 0) ids.push_back(t.id);
    return true;
  });
  EXPECT_EQ(first.finish_reason, FinishReason::length);
  EXPECT_EQ(first.token_ids.size(), 40u);
  EXPECT_EQ(first.log_probabilities.size(), 40u);
  for (const float p : first.log_probabilities) EXPECT_LE(p, 0);
  EXPECT_EQ(streamed, first.text);
  EXPECT_EQ(ids, first.token_ids);
  EXPECT_EQ(model.generate("abc", options).token_ids, first.token_ids) << "nothing of the first is left behind";
  EXPECT_EQ(load(200).generate("abc", options).token_ids, first.token_ids) << "nor does the context matter";
  EXPECT_EQ(first.prompt_tokens, 7u) << "begin token, the three bytes of the space prefix, three letters";
}

TEST_F(Generate, EndsForEveryReason) {
  LanguageModel model = load(/*context=*/24);
  const GenerateOptions options{.max_tokens = 100, .temperature = 0, .ignore_end = true};
  const Generation full = model.generate("abc", options);
  EXPECT_EQ(full.finish_reason, FinishReason::context);
  // Every position of the context was fed; the token after the last one needs no place.
  EXPECT_EQ(full.prompt_tokens + full.token_ids.size(), 24u + 1);

  GenerateOptions few = options;
  few.max_tokens = 3;
  EXPECT_EQ(model.generate("abc", few).finish_reason, FinishReason::length);
  few.max_tokens = 0;
  EXPECT_TRUE(model.generate("abc", few).token_ids.empty());

  int calls = 0;
  const Generation stopped = model.generate("abc", options, [&](const GeneratedToken&) { return ++calls < 4; });
  EXPECT_EQ(stopped.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(stopped.token_ids.size(), 4u);

  const Generation cancelled = model.generate("abc", options, [&](const GeneratedToken&) {
    model.cancel();
    return true;
  });
  EXPECT_EQ(cancelled.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(cancelled.token_ids.size(), 1u);
}

TEST_F(Generate, StopTextsEndIt) {
  LanguageModel model = load();
  const GenerateOptions options{.max_tokens = 60, .seed = 3, .ignore_end = true};
  const Generation whole = model.generate("abc", options);
  // A piece of what it is known to write becomes the stop text.
  size_t at = whole.text.size() / 2;
  while (at < whole.text.size() && (whole.text[at] & 0xC0) == 0x80) ++at;
  GenerateOptions stopping = options;
  stopping.stop = {whole.text.substr(at, 4)};
  const size_t first = whole.text.find(stopping.stop[0]);
  std::string streamed;
  const Generation cut = model.generate("abc", stopping, [&](const GeneratedToken& t) {
    streamed += t.text;
    return true;
  });
  EXPECT_EQ(cut.finish_reason, FinishReason::stop);
  EXPECT_EQ(cut.text, whole.text.substr(0, first));
  EXPECT_EQ(streamed, cut.text);
}

TEST_F(Generate, RefusesWhatCannotBe) {
  LanguageModel model = load(/*context=*/8);
  EXPECT_THROW(model.generate("a prompt longer than that", {}), Error);
  GenerateOptions bare;
  bare.add_begin = false;
  EXPECT_THROW(model.generate("", bare), Error);
  EXPECT_THROW(LanguageModel({.model_path = "/nowhere/model.gguf"}), Error);
  EXPECT_THROW(LanguageModel({.model_path = file_.path(), .k_format = "q3"}), Error);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
size_t allocated_bytes() {
  const struct mallinfo2 m = mallinfo2();
  return m.uordblks + m.hblkhd;
}

// The allocator's own count against the plan: not what the plan says of itself.
TEST_F(Generate, AllocatesWhatWasPlanned) {
  for (const size_t context : {50, 700, 4096}) {
    const OpenedModel opened = open_with_tokenizer(file_.path());
    RunOptions options;
    options.cache.context = context;
    options.threads = 2;
    const MemoryPlan plan = plan_memory(opened.file, options);
    const size_t before = allocated_bytes();
    Runtime runtime(opened.file, options);
    const double allocated = static_cast<double>(allocated_bytes() - before);
    const double planned = static_cast<double>(plan.total_bytes() - plan.weights.mapped);
    // Beside the arrays: vectors of bookkeeping, thread handles.
    EXPECT_GE(allocated, planned);
    EXPECT_LE(allocated, planned * 1.01 + 32768) << context;
    size_t stored = 0;
    for (const StoredTensor& t : opened.file.tensors) stored += t.shape.size() > 1 ? t.data.size() : 0;
    EXPECT_EQ(plan.weights.mapped, stored);
  }
}

// Nothing is allocated while tokens are made: what the step loop needs was there before.
TEST_F(Generate, ForwardAllocatesNothing) {
  const OpenedModel opened = open_with_tokenizer(file_.path());
  RunOptions options;
  options.cache.context = 64;
  Runtime runtime(opened.file, options);
  const SequenceId sequence = runtime.cache().create().value();
  const int32_t token = 5;
  const uint8_t wants = 1;
  size_t before = 0;
  for (int64_t position = 0; position < 64; ++position) {
    ASSERT_TRUE(runtime.cache().append(sequence, 1));
    if (position == 1) before = allocated_bytes();
    runtime.model().forward(
        {.tokens = {&token, 1}, .positions = {&position, 1}, .sequences = {&sequence, 1}, .wants_logits = {&wants, 1}},
        runtime.cache(), runtime.workspace(), runtime.pool());
  }
  EXPECT_EQ(allocated_bytes(), before);
}
#endif

TEST_F(Generate, LongestContextIsTheLastThatFits) {
  const OpenedModel opened = open_with_tokenizer(file_.path());
  RunOptions options;
  options.cache.context = 1000;
  const size_t memory = plan_memory(opened.file, options).total_bytes();
  EXPECT_EQ(longest_context(opened.file, options, memory), 1000u);
  EXPECT_EQ(longest_context(opened.file, options, memory - 1), 999u);
  EXPECT_EQ(longest_context(opened.file, options, 100), 0u);
}

}  // namespace
}  // namespace contexture
