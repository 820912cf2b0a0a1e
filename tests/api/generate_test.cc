#include "engine/generate.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "api/language_model.h"
#include "base/error.h"
#include "cache/layout.h"
#include "engine/runtime.h"
#include "engine/scheduler.h"
#include "files/gguf_writer.h"
#include "support/allocations.h"
#include "support/random_model.h"

namespace contexture {
namespace {

/// A random model with a byte vocabulary on the disk.
class Generate : public testing::Test {
 protected:
  void SetUp() override { write_random_model({.vocabulary = 259}, file_.path(), /*with_vocabulary=*/true); }
  LanguageModel load(size_t context = 0) { return LanguageModel(file_.path(), {.context = context, .sequences = 1}); }
  TemporaryFile file_;
};

TEST_F(Generate, SameSeedSameTextAndCallbacksSeeAllOfIt) {
  LanguageModel model = load();
  std::string streamed;
  std::vector<int32_t> ids;
  const GenerateOptions options{.max_tokens = 40, .sampling = {.seed = 11}, .ignore_end = true};
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

/// LongRoPE rotates K otherwise where prompt and answer may come to more than 64 tokens here.
TEST_F(Generate, ATextIsRotatedByItsOwnLengthWhateverRunsBesideIt) {
  write_random_model({.family = "phi3", .vocabulary = 259, .rope_scaling = "longrope", .original_context = 64},
                     file_.path(), /*with_vocabulary=*/true);
  const GenerateOptions few{.max_tokens = 12, .sampling = {.temperature = 0}, .ignore_end = true};
  GenerateOptions many = few;
  many.max_tokens = 90;
  const Generation alone = load(/*context=*/99).generate("abc", few),
                   long_one = load(/*context=*/99).generate("abc", many);
  EXPECT_NE(std::vector<float>(long_one.log_probabilities.begin(), long_one.log_probabilities.begin() + 12),
            alone.log_probabilities)
      << "the test can tell";
  EXPECT_EQ(load(/*context=*/40).generate("abc", few).log_probabilities, alone.log_probabilities);
  LanguageModel model(file_.path(), {.context = 200, .sequences = 3});
  EXPECT_EQ(model.generate("abc", many).log_probabilities, long_one.log_probabilities);
  const Generation after = model.generate("abc", few);
  EXPECT_EQ(after.log_probabilities, alone.log_probabilities);
  EXPECT_EQ(after.prefix.reused_tokens, 0u) << "rows made with other divisors are not shared";
  std::vector<Stream> streams;
  for (const GenerateOptions& options : {few, many, few}) {
    streams.push_back(model.engine().submit(LanguageModel::request("abc", options)));
  }
  EXPECT_EQ(streams[0].wait().log_probabilities, alone.log_probabilities);
  EXPECT_EQ(streams[1].wait().log_probabilities, long_one.log_probabilities);
  EXPECT_EQ(streams[2].wait().log_probabilities, alone.log_probabilities);
}

TEST_F(Generate, EndsForEveryReason) {
  LanguageModel model = load(/*context=*/24);
  const GenerateOptions options{.max_tokens = 100, .sampling = {.temperature = 0}, .ignore_end = true};
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

  Stream stream = model.engine().submit(LanguageModel::request("abc", options));
  ASSERT_TRUE(stream.next());
  stream.cancel();
  const Generation cancelled = stream.wait();
  if (cancelled.token_ids.size() < full.token_ids.size()) {  // else it was at its end already
    EXPECT_EQ(cancelled.finish_reason, FinishReason::cancelled);
  }
}

TEST_F(Generate, StopTextsEndIt) {
  LanguageModel model = load();
  const GenerateOptions options{.max_tokens = 60, .sampling = {.seed = 3}, .ignore_end = true};
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
  const auto kind_of = [](const std::function<void()>& body) -> std::optional<ErrorKind> {
    try {
      body();
    } catch (const Error& error) {
      return error.kind();
    }
    return std::nullopt;
  };
  EXPECT_EQ(kind_of([&] { model.generate("a prompt longer than that", {}); }), ErrorKind::too_long);
  EXPECT_EQ(kind_of([&] { generate(model.engine(), {.prompt = TextPrompt{"", false}}); }), ErrorKind::invalid);
  EXPECT_EQ(kind_of([&] { generate(model.engine(), {.prompt = TokenPrompt{{1, 300}}}); }), ErrorKind::invalid);
  EXPECT_EQ(kind_of([&] { model.generate("a", {.sampling = {.temperature = -1}}); }), ErrorKind::invalid);
  EXPECT_THROW(LanguageModel("/nowhere/model.gguf"), Error);
  EXPECT_THROW(LanguageModel(file_.path(), {.cache = {.k_format = "q3"}}), Error);
  EXPECT_THROW(LanguageModel(file_.path(), {.cache = {.layout = "heap"}}), Error);
}

// What operator new hands out against the plan: not what the plan says of itself.
TEST_F(Generate, AllocatesWhatWasPlanned) {
  if (!kWatchesAllocations) GTEST_SKIP() << "allocations cannot be watched in this build";
  for (const std::string_view layout : cache_layouts()) {
    for (const size_t context : {50, 700, 4096}) {
      for (const size_t sequences : {1, 5}) {
        const OpenedModel opened = open_with_tokenizer(file_.path());
        RunOptions options;
        options.cache.layout = layout;
        options.cache.context = context;
        options.cache.sequences = sequences;
        options.cache.options =
            own_options(layout, {{"pool_tokens", sequences > 1 ? 2 * context : 0}, {"hot_tokens", 100}});
        options.threads = 2;
        const MemoryPlan plan = plan_memory(opened.file, options);
        const AllocationWatch watch;
        Runtime runtime(opened.file, options);
        const Scheduler scheduler(runtime, nullptr);
        const double allocated = static_cast<double>(watch.peak());
        const double planned = static_cast<double>(plan.total_bytes());
        // Beside the arrays: vectors of bookkeeping, names of tensors while they are bound, thread handles.
        EXPECT_GE(allocated, planned) << layout << ", " << context << " tokens";
        EXPECT_LE(allocated, planned + 65536) << layout << ", " << context << " tokens, " << sequences << " sequences";
        size_t stored = 0;
        for (const StoredTensor& t : opened.file.tensors) stored += t.shape.size() > 1 ? t.data.size() : 0;
        EXPECT_EQ(plan.weights.stored, stored);
      }
    }
  }
}

// Nothing is allocated while tokens are made, not even for a moment: two sequences, chunks and single tokens, threads.
TEST_F(Generate, ForwardAllocatesNothing) {
  if (!kWatchesAllocations) GTEST_SKIP() << "allocations cannot be watched in this build";
  const OpenedModel opened = open_with_tokenizer(file_.path());
  RunOptions options;
  options.cache.context = 200;
  options.cache.sequences = 2;
  options.threads = 2;
  Runtime runtime(opened.file, options);
  const SequenceId first = runtime.cache().create().value(), second = runtime.cache().create().value();
  for (const size_t chunk : {1, 1, 150, 30, 1}) {
    std::vector<int32_t> tokens(chunk + 1, 5);
    std::vector<int64_t> positions;
    std::vector<SequenceId> sequences(chunk, first);
    sequences.push_back(second);
    std::vector<uint8_t> wants(chunk + 1, 0);
    wants[0] = 1;
    for (size_t i = 0; i < chunk; ++i) positions.push_back(static_cast<int64_t>(runtime.cache().length(first) + i));
    positions.push_back(static_cast<int64_t>(runtime.cache().length(second)));
    const AllocationWatch watch;
    ASSERT_TRUE(runtime.cache().append(first, chunk));
    ASSERT_TRUE(runtime.cache().append(second, 1));
    const auto logits = runtime.model().forward(
        {.tokens = tokens, .positions = positions, .sequences = sequences, .wants_logits = wants}, runtime.cache(),
        runtime.workspace(), runtime.pool());
    EXPECT_EQ(watch.peak(), 0u) << "a chunk of " << chunk;
    EXPECT_FALSE(logits.empty());
  }
}

TEST_F(Generate, CancelEndsALongPrompt) {
  const OpenedModel opened = open_with_tokenizer(file_.path());
  RunOptions options;
  options.cache.context = 4000;
  Runtime runtime(opened.file, options);
  const std::atomic<bool> cancelled{true};
  const std::vector<TokenId> prompt(4000, 7);
  const Generation made =
      generate(runtime, *opened.tokenizer, {.prompt = prompt, .callbacks = {.cancelled = &cancelled}});
  EXPECT_EQ(made.finish_reason, FinishReason::cancelled);
  EXPECT_TRUE(made.token_ids.empty());
}

TEST_F(Generate, TheVocabularyMustFitTheModel) {
  // As files without llama.vocab_size do it: only the tokenizer's table says how many tokens there are.
  const TemporaryFile other;
  ModelFile file = open_model(file_.path());
  file.metadata.forget("llama.vocab_size");
  std::vector<std::string> tokens = file.metadata.get_strings("tokenizer.ggml.tokens");
  std::vector<float> scores = file.metadata.get_floats("tokenizer.ggml.scores");
  std::vector<int64_t> types = file.metadata.get_ints("tokenizer.ggml.token_type");
  tokens.push_back("extra");
  scores.push_back(0);
  types.push_back(1);
  file.metadata.set_strings("tokenizer.ggml.tokens", tokens);
  file.metadata.set_floats("tokenizer.ggml.scores", scores);
  file.metadata.set_ints("tokenizer.ggml.token_type", types);
  write_gguf(other.path(), file.metadata, file.tensors);
  const OpenedModel opened = open_with_tokenizer(other.path());
  RunOptions options;
  options.cache.context = 10;
  EXPECT_THROW(plan_memory(opened.file, options), Error);
}

TEST_F(Generate, LongestContextIsTheLastThatFits) {
  const OpenedModel opened = open_with_tokenizer(file_.path());
  RunOptions options;
  options.cache.context = 1000;
  const size_t memory = plan_memory(opened.file, options).total_bytes();
  EXPECT_EQ(longest_context(opened.file, options, memory), 1000u);
  EXPECT_EQ(longest_context(opened.file, options, memory - 1), 999u);
  EXPECT_EQ(longest_context(opened.file, options, 100), 0u);
  options.cache.sequences = size_t{1} << 20;  // of the longest context there is: more bytes than can be counted
  options.cache.context = longest_context(opened.file, options, memory << 20);
  EXPECT_LE(plan_memory(opened.file, options).total_bytes(), memory << 20);
  ++options.cache.context;
  EXPECT_GT(plan_memory(opened.file, options).total_bytes(), memory << 20);
}

}  // namespace
}  // namespace contexture
