// Text from compiled graphs: the engine's own text, its conversations, its finish reasons.

#include "engine/static_model.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "contexture/contexture.h"
#include "contexture/llm_decode_runner.h"
#include "files/gguf_writer.h"
#include "static_graph/compile.h"
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
    return {.directory = path(), .backend = CONTEXTURE_REFERENCE_BACKEND, .threads = 2};
  }

 private:
  TemporaryFile name_;
};

constexpr const char* kBundled = "models/stories-1m.gguf";
const GenerateOptions kGreedy = {.max_tokens = 1000, .temperature = 0, .ignore_end = true};

std::vector<int32_t> text_of(StaticModel& model, const std::string& prompt, const GenerateOptions& options = kGreedy) {
  return generate_static(model.runner(), model.tokenizer(), model.tokenizer().encode(prompt), options, {}).token_ids;
}

TEST(StaticModel, FloatGraphsTellTheEnginesText) {
  LanguageModel engine({.model_path = kBundled, .threads = 2, .context = 128, .k_format = "f32", .v_format = "f32"});
  for (const std::string prompt : {"Tom hid the red lamp in the barn. Ann put the blue ball in the box."}) {
    GenerateOptions options = kGreedy;
    options.max_tokens = 100;
    const std::vector<int32_t> expected = engine.generate(prompt, options).token_ids;
    for (const bool per_head : {true, false}) {
      const Compiled compiled(kBundled, {.per_head = per_head});
      StaticModel model(compiled.options());
      EXPECT_EQ(text_of(model, prompt, options), expected);
    }
  }
}

TEST(StaticModel, PastTheContextIsAFinishReason) {
  const Compiled compiled(kBundled, {.context = 64});
  StaticModel model(compiled.options());
  const std::vector<TokenId> prompt = model.tokenizer().encode("Once upon a time");
  const Generation made = generate_static(model.runner(), model.tokenizer(), prompt, kGreedy, {});
  EXPECT_EQ(made.finish_reason, FinishReason::context);
  EXPECT_EQ(prompt.size() + made.token_ids.size(), 64u);
  EXPECT_EQ(model.runner().length(), 63u);
  const std::vector<TokenId> long_prompt(64, prompt.back());
  EXPECT_THROW(generate_static(model.runner(), model.tokenizer(), long_prompt, kGreedy, {}), Error);
}

TEST(StaticModel, SampledTextIsTheSameByAnyUpdaterAndMode) {
  const Compiled compiled(kBundled, {.recipe = "16a4w-block"});
  GenerateOptions options = {.max_tokens = 60, .seed = 3};
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
  CachedConversation conversation(static_turns(model.runner(), model.tokenizer()), model.tokenizer(), chat);
  const GenerateOptions options = {.max_tokens = 6, .temperature = 0, .ignore_end = true};
  (void)conversation.say("hello you", options);
  const Generation second = conversation.say("and then", options);
  EXPECT_EQ(second.prefilled_tokens, 1u + 1 + 10 + 1) << "the answer's last letter, its end, the message, a beginning";
  CachedConversation again(static_turns(fresh.runner(), fresh.tokenizer()), fresh.tokenizer(), chat);
  std::vector<ChatMessage> history = conversation.messages();
  history.resize(2);
  again.set_messages(history);
  EXPECT_EQ(again.say("and then", options).token_ids, second.token_ids);
}

TEST(LLMDecodeRunner, GoesOnWhereItEnded) {
  const Compiled compiled(kBundled, {});
  LLMDecodeConfig config;
  config.ctx_dir = compiled.path();
  config.backend_so = CONTEXTURE_REFERENCE_BACKEND;
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

TEST(LLMDecodeRunner, SaysWhatIsWrong) {
  const Compiled compiled(kBundled, {});
  const auto error = [&](const auto& change) {
    LLMDecodeConfig config;
    config.ctx_dir = compiled.path();
    config.backend_so = CONTEXTURE_REFERENCE_BACKEND;
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
