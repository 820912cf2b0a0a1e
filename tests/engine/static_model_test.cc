// Text from compiled graphs: the engine's own text, its conversations, its finish reasons.

#include "engine/static_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "backends/static_graph/compile.h"
#include "base/log.h"
#include "contexture/llm_decode_runner.h"
#include "engine/conversation.h"
#include "engine/generate.h"
#include "engine/logits.h"
#include "engine/runtime.h"
#include "files/gguf_writer.h"
#include "support/built.h"
#include "support/letter_model.h"
#include "support/random_model.h"

namespace contexture {
namespace {

/// A model compiled with its tokenizer; deleted when this goes.
class Compiled {
 public:
  struct Task {
    std::string recipe = "float";
    size_t shards = 2, context = 128;
    bool per_head = true;
    GraphMode mode = GraphMode::hybrid;
  };
  Compiled(const std::string& model, const Task& task) {
    const ModelFile file = open_model(model);
    CompileTask all = {.out = path(),
                       .shards = task.shards,
                       .context = task.context,
                       .mode = task.mode,
                       .per_head = task.per_head,
                       .recipe = parse_recipe(task.recipe)};
    for (const auto& [key, value] : file.metadata.entries()) {
      if (key.starts_with("tokenizer.") || key == "general.architecture") all.tokenizer.set(key, value);
    }
    if (all.recipe.fixed_point) {
      all.calibration = open_with_tokenizer(model).need_tokenizer().encode(
          "Once upon a time, in a warm cave beside a big garden, there lived a bear named Theo. He was very funny.");
    }
    ThreadPool pool(2);
    (void)compile_model(file, all, pool);
  }
  ~Compiled() { std::filesystem::remove_all(path()); }
  std::string path() const { return name_.path() + ".graphs"; }
  StaticLoadOptions options() const {
    return {.directory = path(), .backend = built_reference_backend(), .threads = 2};
  }

 private:
  TemporaryFile name_;
};

constexpr const char* kBundled = "models/stories-1m.gguf";
const GenerateOptions kGreedy = {.max_tokens = 1000, .sampling = {.temperature = 0}, .ignore_end = true};

std::vector<int32_t> text_of(StaticModel& model, const std::string& prompt, const GenerateOptions& options = kGreedy) {
  return generate(model.executor(), model.tokenizer(), {.prompt = model.tokenizer().encode(prompt), .options = options})
      .token_ids;
}

/// The engine with an f32 cache and the `float` recipe: the same greedy text as far as the context goes, and logits
/// that differ by no more than the issue allows. (Sums run in other orders: 1e-5 is usual.)
void expect_the_engines_text(const std::string& path, const std::string& prompt, const Compiled::Task& task,
                             KvUpdate update = KvUpdate::smart_mask) {
  SCOPED_TRACE(testing::Message() << path << ", context " << task.context);
  const Compiled compiled(path, task);
  StaticLoadOptions options = compiled.options();
  options.tokenizer_path = path;
  options.update = update;
  StaticModel graphs(options);
  const OpenedModel opened = open_with_tokenizer(path);
  RunOptions run;
  run.cache.context = task.context;
  run.cache.shape.k_format = run.cache.shape.v_format = Format::f32;
  run.threads = 2;
  Runtime engine(opened.file, run);
  const std::vector<TokenId> prompt_ids = graphs.tokenizer().encode(prompt);
  GenerateOptions greedy = kGreedy;
  greedy.max_tokens = std::min<size_t>(110, task.context - prompt_ids.size());
  const Generation made = generate(graphs.executor(), graphs.tokenizer(), {.prompt = prompt_ids, .options = greedy});
  EXPECT_EQ(made.token_ids.size(), greedy.max_tokens);
  EXPECT_EQ(made.token_ids,
            generate(engine, opened.need_tokenizer(), {.prompt = prompt_ids, .options = greedy}).token_ids);

  // The text again as a prompt, with any tokens behind it: in chunks as far as they go, then token by token.
  std::vector<TokenId> tokens = prompt_ids;
  tokens.insert(tokens.end(), made.token_ids.begin(), made.token_ids.end());
  const size_t vocabulary = graphs.runner().shape().vocabulary;
  const std::vector<TokenId> any = random_tokens(task.context, vocabulary);
  tokens.insert(tokens.end(), any.begin(), any.end());
  tokens.resize(task.context - 1);
  const std::vector<float> of_engine = contexture::logits_of(path, tokens);
  ASSERT_EQ(of_engine.size(), tokens.size() * vocabulary);
  float worst = 0;
  graphs.runner().truncate(0);
  (void)graphs.runner().feed(tokens, {.on_logits =
                                          [&](size_t token, std::span<const float> logits) {
                                            for (size_t i = 0; i < vocabulary; ++i) {
                                              worst = std::max(
                                                  worst, std::fabs(logits[i] - of_engine[token * vocabulary + i]));
                                            }
                                          },
                                      .on_progress = {},
                                      .cancelled = nullptr});
  EXPECT_LT(worst, 1e-3f);
}

TEST(StaticModel, FloatGraphsTellTheEnginesText) {
  const std::string prompt = "Tom hid the red lamp in the barn. Ann put the blue ball in the box.";
  expect_the_engines_text(kBundled, prompt, {.per_head = false});
  expect_the_engines_text(kBundled, prompt, {.shards = 3, .context = 512}, KvUpdate::shift_pointer);
}

TEST(StaticModel, FloatGraphsTellTheEnginesTextOfStories260K) {
  const std::string path = "../shared/data/stories260k/stories260K.bin", prompt = "Once upon a time, there was a";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path << " here";
  expect_the_engines_text(path, prompt, {.shards = 5});
  expect_the_engines_text(path, prompt, {.context = 512, .per_head = false});
}

TEST(StaticModel, FloatGraphsTellTheEnginesTextOfLlama32Shapes) {
  const TemporaryFile path;
  write_random_model({.dim = 96, .layers = 3, .heads = 6, .kv_heads = 2, .ffn_dim = 172, .rope_divisors = true},
                     path.path(), /*with_vocabulary=*/true);
  expect_the_engines_text(path.path(), "abcd", {.shards = 3}, KvUpdate::shift_pointer);
  expect_the_engines_text(path.path(), "dcba", {.context = 512});
}

TEST(StaticModel, PastTheContextIsAFinishReason) {
  const Compiled compiled(kBundled, {.context = 64});
  StaticModel model(compiled.options());
  const std::vector<TokenId> prompt = model.tokenizer().encode("Once upon a time");
  const Generation made = generate(model.executor(), model.tokenizer(), {.prompt = prompt, .options = kGreedy});
  EXPECT_EQ(made.finish_reason, FinishReason::context);
  EXPECT_EQ(prompt.size() + made.token_ids.size(), 64u);
  EXPECT_EQ(model.runner().length(), 63u);
  const std::vector<TokenId> long_prompt(64, prompt.back());
  EXPECT_THROW(generate(model.executor(), model.tokenizer(), {.prompt = long_prompt, .options = kGreedy}), Error);
}

TEST(StaticModel, SampledTextIsTheSameByAnyUpdaterAndMode) {
  const Compiled compiled(kBundled, {.recipe = "16a4w-block"});
  GenerateOptions options = {.max_tokens = 60, .sampling = {.seed = 3}};
  std::vector<std::vector<int32_t>> made;
  for (const KvUpdate update : {KvUpdate::smart_mask, KvUpdate::shift_pointer}) {
    for (const GraphMode mode : {GraphMode::hybrid, GraphMode::kv}) {
      StaticLoadOptions load = compiled.options();
      load.update = update;
      load.mode = mode;
      StaticModel model(load);
      made.push_back(text_of(model, "Once upon a time", options));
    }
  }
  EXPECT_EQ(made[0].size(), 60u);
  for (const auto& each : made) EXPECT_EQ(each, made[0]);
}

TEST(StaticModel, AConversationCostsItsNewTokens) {
  const TemporaryFile letters;
  write_letter_model(letters.path(), kLetterTemplate);
  const Compiled compiled(letters.path(), {.context = 128});
  StaticModel model(compiled.options()), fresh(compiled.options());
  const ChatTemplate chat = ChatTemplate::choose(model.metadata_file().metadata, model.tokenizer().vocabulary());
  CachedConversation conversation(model.executor(), model.tokenizer(), chat);
  const GenerateOptions options = {.max_tokens = 6, .sampling = {.temperature = 0}, .ignore_end = true};
  (void)conversation.say("hello you", options);
  const Generation second = conversation.say("and then", options);
  EXPECT_EQ(second.prefilled_tokens, 1u + 1 + 10 + 1) << "the answer's last letter, its end, the message, a beginning";
  CachedConversation again(fresh.executor(), fresh.tokenizer(), chat);
  std::vector<ChatMessage> history = conversation.messages();
  history.resize(2);
  again.set_messages(history);
  EXPECT_EQ(again.say("and then", options).token_ids, second.token_ids);
}

TEST(LLMDecodeRunner, GoesOnWhereItEnded) {
  const Compiled compiled(kBundled, {});
  LLMDecodeConfig config;
  config.ctx_dir = compiled.path();
  config.backend_so = built_reference_backend();
  config.max_gen_tokens = 10;
  config.num_shards = 2;
  LLMDecodeRunner runner(config);
  ASSERT_TRUE(runner.initialize()) << runner.get_error();
  std::string first, second;
  ASSERT_TRUE(runner.generate("Once upon a time", first)) << runner.get_error();
  EXPECT_EQ(runner.finish_reason(), "length");
  const size_t held = runner.context_tokens();
  ASSERT_TRUE(runner.generate(" The end.", second)) << runner.get_error();
  EXPECT_GT(runner.context_tokens(), held + 10);
  runner.reset();
  ASSERT_TRUE(runner.generate("Once upon a time", second));
  EXPECT_EQ(first, second);

  for (int turn = 0; turn < 20 && runner.generate(" And so on and so on.", second); ++turn) {
  }
  EXPECT_NE(runner.get_error().find("compile it with a longer --context"), std::string::npos) << runner.get_error();
}

TEST(LLMDecodeRunner, SaysMoreOfItsOwnWorkAlone) {
  const Compiled compiled(kBundled, {});
  std::string heard;
  set_log([&](LogLevel, std::string_view message) { (heard += message) += '\n'; });
  LLMDecodeConfig config;
  config.ctx_dir = compiled.path();
  config.backend_so = built_reference_backend();
  config.log_level = 1;
  LLMDecodeRunner runner(config);
  EXPECT_TRUE(runner.initialize()) << runner.get_error();
  EXPECT_NE(heard.find("shared buffers"), std::string::npos) << heard;
  EXPECT_FALSE(logs(LogLevel::info)) << "what the host chose stays";
  heard.clear();
  config.log_level = 0;
  EXPECT_TRUE(LLMDecodeRunner(config).initialize());
  EXPECT_EQ(heard, "");
  set_log({});
}

TEST(LLMDecodeRunner, SaysWhatIsWrong) {
  const Compiled compiled(kBundled, {});
  const auto error = [&](const auto& change) {
    LLMDecodeConfig config;
    config.ctx_dir = compiled.path();
    config.backend_so = built_reference_backend();
    change(config);
    LLMDecodeRunner runner(config);
    EXPECT_FALSE(runner.initialize());
    return runner.get_error();
  };
  const auto says = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  says(error([](LLMDecodeConfig& c) { c.num_shards = 8; }), "expected 8 shards, found 2");
  says(error([](LLMDecodeConfig& c) { c.use_multi_context = false; }), "expected 1 shards, found 2");
  says(error([](LLMDecodeConfig& c) { c.backend_so = "libQnnHtp.so"; }), "no graph backend libQnnHtp.so");
  says(error([](LLMDecodeConfig& c) { c.ctx_dir = "/no/such"; }), "is no folder");
  says(error([](LLMDecodeConfig& c) { c.kv_updater = "x"; }), "unknown kv_updater");
  LLMDecodeRunner runner((LLMDecodeConfig()));
  std::string text;
  EXPECT_FALSE(runner.generate("x", text));
  says(runner.get_error(), "not initialized");
}

}  // namespace
}  // namespace contexture
