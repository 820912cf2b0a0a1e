#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// What `compile` made of the bundled model, as floats in two shards.
class StaticGraphCommands : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    name_ = std::make_unique<TemporaryFile>(".graphs");
    std::filesystem::remove(name_->path());
    const Ended made = run_program("compile -o " + name_->path() + " --shards 2 --context 128 --recipe float");
    ASSERT_EQ(made.status, 0) << made.err;
  }
  static void TearDownTestSuite() {
    std::filesystem::remove_all(name_->path());
    name_.reset();
  }
  static Ended run(const std::string& command, const std::string& flags, const std::string& input = {}) {
    std::string arguments = command;
    arguments.append(" --context-dir ").append(name_->path()).append(" ").append(flags);
    return run_program(arguments, input);
  }
  static json result(const Ended& ended) {
    EXPECT_EQ(ended.status, 0) << ended.err;
    return json::parse(ended.out);
  }

  static inline std::unique_ptr<TemporaryFile> name_;
};

TEST_F(StaticGraphCommands, RunTellsTheEnginesStory) {
  const std::string prompt = "-p 'Once upon a time' --temp 0 -n 60 --json ";
  const json engine = result(run_program("run -ctk f32 -ctv f32 " + prompt));
  for (const std::string flags : {"", "--kv-updater shift-pointer", "--mode kv", "--mode hybrid -t 1"}) {
    const json made = result(run("run", prompt + flags));
    EXPECT_EQ(made["token_ids"], engine["token_ids"]) << flags;
    EXPECT_EQ(made["finish_reason"], engine["finish_reason"]);
    EXPECT_EQ(made["prompt_tokens"], engine["prompt_tokens"]);
  }
  EXPECT_EQ(result(run("run", "-p Once --temp 0 --ignore-eos --json -n 500"))["finish_reason"], "context");
}

TEST_F(StaticGraphCommands, LogLevelTwoListsEveryTensor) {
  const Ended ended = run("run", "-n 2 --temp 0 -p Once -vv");
  for (const char* part : {"forward_0.bin, prefill_forward: ", "forward_1.bin, kv_forward: ", "k_in_0_0",
                           "rope_cos_out", "smart-mask", "heads head_dim", "views registered"}) {
    EXPECT_THAT(ended.err, HasSubstr(part));
  }
}

TEST_F(StaticGraphCommands, InfoTellsAndPrintsTheGraphs) {
  const json about = result(run("info", "--json"));
  EXPECT_EQ(about["recipe"], "float");
  EXPECT_EQ(about["context"], 128);
  EXPECT_EQ(about["shards"].size(), 2u);
  EXPECT_THAT(about["shards"]["forward_1.bin"]["kv_forward"], HasSubstr(" inputs, "));
  EXPECT_THAT(run("info", "").out, HasSubstr("forward_0.bin\n"));
  const std::string text = run("info", "--graphs").out;
  for (const char* part : {"forward_1.bin\n", "graph prefill_forward\n", "  input  atten_mask f32[1,1,32,128]\n",
                           "constant output.weight", "= softmax(blk.0.masked)", "  output logits f32[1,1,"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_EQ(run_program("info --graphs").status, 2);
}

/// The other runner's command line.
TEST_F(StaticGraphCommands, LlmGenerateTellsTheSameStory) {
  const auto generate = [](const std::string& flags) {
    return run_program(flags, {}, built_program("contexture_llm_generate"));
  };
  const std::string folder = "--ctx_dir " + name_->path();
  const json expected = result(run("run", "-p 'Once upon a time' --temp 0 -n 30 --json"));
  const Ended made = generate(folder + " --prompt 'Once upon a time' --max_gen 30");
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.err, "");
  EXPECT_EQ(made.out, expected["text"].get<std::string>() + "\n");
  const Ended told = generate(folder + " --tokenizer models/stories-1m.gguf --prompt Once --max_gen 2 --log_level 2");
  EXPECT_EQ(told.status, 0) << told.err;
  EXPECT_THAT(told.err, HasSubstr("forward_1.bin, kv_forward: "));
  const Ended wrong = generate("--ctx_dir /no/such --prompt Once");
  EXPECT_EQ(wrong.status, 1);
  EXPECT_THAT(wrong.err, HasSubstr("/no/such is no folder"));
  EXPECT_EQ(generate("--prompt Once").status, 2);
  const std::string program = built_program("contexture_llm_generate") + " " + folder + " --prompt Once --max_gen 2 ";
  EXPECT_EQ(run_script(program + ">/dev/full").status, 1) << "what cannot be written is a failure";
  EXPECT_EQ(run_script(program + ">&- 2>&-").status, 0);
}

TEST_F(StaticGraphCommands, ChatGoesOn) {
  const Ended ended = run("chat", "--temp 0 -n 20 --chat-format plain -v", "Hello.\nTell me more.\n");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_GE(std::count(ended.out.begin(), ended.out.end(), '\n'), 2) << ended.out;
}

TEST_F(StaticGraphCommands, PerplexityIsTheEngines) {
  std::ifstream file("models/stories-1m.heldout.txt");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (kSanitized) text.resize(text.size() / 4);
  const json made = result(run("eval perplexity", "-f - --json", text));
  const json engine = result(run_program("eval perplexity -ctk f32 -ctv f32 -c 128 -f - --json", text));
  EXPECT_EQ(made["tokens"], engine["tokens"]);
  // Both sum floats, in other orders.
  EXPECT_NEAR(made["nats_per_token"].get<double>(), engine["nats_per_token"].get<double>(), 1e-5);
}

/// One graph of the whole context: every token runs all of them again.
TEST(PrefillFolder, TellsTheEnginesStoryToo) {
  const TemporaryFile name(".graphs");
  std::filesystem::remove(name.path());
  const Ended compiled =
      run_program("compile -o " + name.path() + " --mode prefill --shards 2 --context 64 --recipe float");
  ASSERT_EQ(compiled.status, 0) << compiled.err;
  const auto run = [&](const std::string& flags) {
    return run_program("run --context-dir " + name.path() + " -p 'Once upon a time' --temp 0 --json " + flags);
  };
  const Ended made = run("-n 20"),
              engine = run_program("run -ctk f32 -ctv f32 -p 'Once upon a time' --temp 0 --json -n 20");
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(json::parse(made.out)["token_ids"], json::parse(engine.out)["token_ids"]);
  const json full = json::parse(run("-n 500 --ignore-eos --mode prefill").out);
  EXPECT_EQ(full["finish_reason"], "context");
  EXPECT_EQ(full["prompt_tokens"].get<int>() + full["token_ids"].size(), 65u) << "64 that were run, and the next";
  for (const char* mode : {"kv", "hybrid"}) {
    EXPECT_THAT(run(std::string("-n 1 --mode ") + mode).err, HasSubstr("which are for prefill alone"));
  }
  std::filesystem::remove_all(name.path());
}

/// 16 layers of 8 KV heads in 8 shards: the counts of the document that describes them, and both updaters, which are
/// chosen when the graphs run.
TEST(CompiledFolder, AsTheGuidesDescribeItWhereNothingIsSaid) {
  const TemporaryFile model, name(".graphs");
  write_random_model({.dim = 128, .layers = 16, .heads = 16, .kv_heads = 8, .ffn_dim = 32}, model.path(), true);
  const std::string folder = " --context-dir " + name.path(),
                    prompt = std::string(" -p 'abcd' --temp 0 --ignore-eos --json -n ") + (kSanitized ? "8" : "40");
  const auto compile = [&](const std::string& flags) {
    std::filesystem::remove_all(name.path());
    const Ended made = run_program("compile -m " + model.path() + " -o " + name.path() + " --shards 8 " + flags);
    ASSERT_EQ(made.status, 0) << made.err;
  };
  const auto tokens = [&](const std::string& flags) {
    const Ended made = run_program("run" + flags + prompt);
    EXPECT_EQ(made.status, 0) << made.err;
    return made.status == 0 ? json::parse(made.out)["token_ids"] : json();
  };
  const auto expect_counts = [&](const char* first, const char* other) {
    const json shards = json::parse(run_program("info --json" + folder).out)["shards"];
    ASSERT_EQ(shards.size(), 8u);
    for (size_t i = 0; i < 8; ++i) {
      for (const char* graph : {"prefill_forward", "kv_forward"}) {
        EXPECT_THAT(shards["forward_" + std::to_string(i) + ".bin"][graph], testing::StartsWith(i ? other : first));
      }
    }
  };
  const json engine = tokens(" -ctk f32 -ctv f32 -m " + model.path());

  compile("--recipe float");
  expect_counts("35 inputs, 35 outputs, ", "36 inputs, 33 outputs, ");
  for (const char* flags : {"", " --kv-updater smart-mask", " --kv-updater shift-pointer"}) {
    EXPECT_EQ(tokens(folder + flags), engine) << flags;
  }
  const Ended generated = run_program("--ctx_dir " + name.path() + " --kv_updater shift-pointer --prompt abcd", {},
                                      built_program("contexture_llm_generate"));
  EXPECT_EQ(generated.status, 0) << generated.err;

  compile("--recipe float --kv-layout per-layer");
  expect_counts("7 inputs, 7 outputs, ", "8 inputs, 5 outputs, ");
  EXPECT_EQ(tokens(folder), engine);
  const Ended refused = run_program("run" + folder + " --kv-updater shift-pointer -n 1 -p a");
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("compile without --kv-layout per-layer"));
  std::filesystem::remove_all(name.path());
}

TEST_F(StaticGraphCommands, FlagsThatMeanNothingAreRefused) {
  for (const char* flags : {"-m x", "-ctk f32", "-c 100", "--cache paged", "--session x", "--mode other"}) {
    EXPECT_EQ(run("run", std::string(flags) + " -n 1 -p x").status, 2) << flags;
  }
  EXPECT_EQ(run_program("run --kv-updater smart-mask -n 1").status, 2);
  const Ended backend = run("run", "-n 1 -p x --backend /no/such.so");
  EXPECT_EQ(backend.status, 1);
  EXPECT_THAT(backend.err, HasSubstr("no graph backend /no/such.so"));
  EXPECT_THAT(run("run", "-n 1 -p x --mode prefill").err, HasSubstr("mode prefill is not in these graphs"));
}

}  // namespace
}  // namespace contexture
