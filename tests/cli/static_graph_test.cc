#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/random_model.h"

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
    const Ended made =
        run_program("compile -o " + name_->path() + " --shards 2 --context 128 --recipe float --kv-layout per-head");
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

TEST_F(StaticGraphCommands, ChatGoesOn) {
  const Ended ended = run("chat", "--temp 0 -n 20 --chat-format plain -v", "Hello.\nTell me more.\n");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_GE(std::count(ended.out.begin(), ended.out.end(), '\n'), 2) << ended.out;
}

TEST_F(StaticGraphCommands, PerplexityIsTheEngines) {
  const std::string text = "-f models/stories-1m.heldout.txt --json";
  const json made = result(run("eval perplexity", text));
  const json engine = result(run_program("eval perplexity -ctk f32 -ctv f32 -c 128 " + text));
  EXPECT_EQ(made["tokens"], engine["tokens"]);
  // Both sum floats, in other orders.
  EXPECT_NEAR(made["nats_per_token"].get<double>(), engine["nats_per_token"].get<double>(), 1e-5);
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
