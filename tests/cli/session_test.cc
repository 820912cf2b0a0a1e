#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

/// `run --session` with the bundled model.
class RunSessionTest : public testing::Test {
 protected:
  RunSessionTest() { std::filesystem::remove(file_.path()); }

  Ended run(const std::string& arguments) const {
    return run_program("run --session " + file_.path() + " --json --ignore-eos " + arguments);
  }
  static json result(const Ended& ended) {
    EXPECT_EQ(ended.status, 0) << ended.err;
    return json::parse(ended.out);
  }
  static std::vector<int> ids(const Ended& ended) { return result(ended)["token_ids"].get<std::vector<int>>(); }
  static std::vector<int> joined(std::vector<int> a, const std::vector<int>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
  std::string bytes() const {
    std::ifstream file(file_.path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const std::string prompt_ = " -p 'Once upon a time'";
  TemporaryFile file_{".session"};
};

TEST_F(RunSessionTest, GoesOnAsIfItHadNeverStopped) {
  std::vector<std::string> ways = {"--temp 0 --cache mixed --hot-tokens 1", "-s 5 --repeat-penalty 1.3 -ctk q4_0"};
  if (!kSanitized) ways.insert(ways.end(), {"--temp 0", "-s 3"});
  for (const std::string& flags : ways) {
    const std::vector<int> whole = ids(run_program("run --json --ignore-eos -n 300 " + flags + prompt_));
    std::filesystem::remove(file_.path());
    std::vector<int> parts = ids(run("-n 20 " + flags + prompt_));
    parts = joined(parts, ids(run("-n 180 " + flags)));
    parts = joined(parts, ids(run("-n 1 " + flags)));
    parts = joined(parts, ids(run("-n 99 " + flags)));
    EXPECT_EQ(parts, whole) << flags;
  }
}

TEST_F(RunSessionTest, WithoutASeedItGoesOnWithItsOwn) {
  const std::vector<int> whole = ids(run_program("run --json --ignore-eos -n 30 -s 11" + prompt_));
  const std::vector<int> begun = ids(run("-n 10 -s 11" + prompt_));
  EXPECT_EQ(joined(begun, ids(run("-n 20"))), whole);
}

TEST_F(RunSessionTest, APromptIsTheWholeText) {
  ids(run("-n 5 --temp 0" + prompt_));
  const std::string longer = "-n 8 --temp 0 -p 'Once upon a time there was a dog'";
  const Ended more = run(longer);
  EXPECT_EQ(ids(more), ids(run_program("run --json --ignore-eos " + longer)));
  EXPECT_THAT(more.err, HasSubstr("reused"));
  EXPECT_GE(result(more)["reused_tokens"], 5);
  EXPECT_TRUE(result(more).contains("first_difference"));
  const json difference = result(run("-n 1 --temp 0 -v -p 'Once upon my day'"))["first_difference"];
  EXPECT_EQ(difference["position"], 3) << "after the begin token, Once and upon";
  EXPECT_EQ(difference["held"]["text"], " a");
  const Ended shorter = run("-n 8 --temp 0 -p 'Once'");
  EXPECT_EQ(ids(shorter), ids(run_program("run --json --ignore-eos -n 8 --temp 0 -p 'Once'")));
}

TEST_F(RunSessionTest, RefusesWhatIsNotItsOwn) {
  ids(run("-n 5" + prompt_));
  const std::string whole = bytes();
  const auto refused = [&](const Ended& ended, const std::string& says) {
    EXPECT_EQ(ended.status, 1);
    EXPECT_THAT(ended.err, HasSubstr(says));
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
    EXPECT_EQ(ended.out, "");
  };
  const TemporaryFile other;
  write_random_model({.vocabulary = 259}, other.path(), /*with_vocabulary=*/true);
  refused(run("-n 5 -m " + other.path()), "another model (stories-1m.gguf)");
  refused(run("-n 5 -c 8"), "-c ");
  EXPECT_EQ(bytes(), whole) << "what is refused is not touched";
  std::string damaged = whole;
  damaged[damaged.size() / 2] ^= 1;
  std::ofstream(file_.path(), std::ios::binary) << damaged;
  refused(run("-n 5"), "damaged");
  std::ofstream(file_.path(), std::ios::binary) << "{\"messages\":[]}";
  refused(run("-n 5"), "no session");
  refused(run_program("run -p x -n 1 --json --session /nowhere/file"), "/nowhere/file");
}

/// LongRoPE rotates K otherwise where a run plans for more than 64 tokens here.
TEST_F(RunSessionTest, GrowsOverTheBorderOfLongRopeAndGivesNoShortPromptAnotherText) {
  const TemporaryFile model;
  write_random_model({.family = "phi3", .vocabulary = 259, .rope_scaling = "longrope", .original_context = 64},
                     model.path(), /*with_vocabulary=*/true);
  const std::string of = "-t 1 --temp 0 -m " + model.path();
  const auto fresh = [&](const std::string& flags) {
    return ids(run_program("run --json --ignore-eos " + of + flags));
  };
  const std::vector<int> begun = ids(run(of + " -p abc -n 20"));
  EXPECT_EQ(begun, fresh(" -p abc -n 20"));
  const Ended grown = run(of + " -n 60");
  EXPECT_THAT(grown.err, HasSubstr("rotates K otherwise"));
  EXPECT_EQ(result(grown)["reused_tokens"], 0);
  EXPECT_EQ(ids(grown).size(), 60u);
  const Ended stays = run(of + " -n 5");
  EXPECT_THAT(stays.err, Not(HasSubstr("rotates K otherwise"))) << "it is long now";
  const Ended short_prompt = run(of + " -p abc -n 20");
  EXPECT_EQ(ids(short_prompt), begun);
  EXPECT_THAT(short_prompt.err, HasSubstr("rotates K otherwise"));
  ids(run(of + " -p abc -n 5 -c 100"));
  EXPECT_EQ(joined(ids(run(of + " -p abc -n 5 -c 100")), ids(run(of + " -n 9"))), fresh(" -p abc -n 14 -c 100"))
      << "it began with a long context, and goes on so";
}

TEST_F(RunSessionTest, CtrlCSavesWhatIsDone) {
  const TemporaryFile model;  // slow enough that 4,000 tokens take seconds
  write_random_model({.dim = 256, .layers = 8, .heads = 8, .kv_heads = 8, .ffn_dim = 1024, .vocabulary = 259},
                     model.path(), /*with_vocabulary=*/true);
  const Ended ended = run_program_and_interrupt(
      {"run", "-m", model.path(), "--ignore-eos", "-n", "4000", "-p", "abc", "--session", file_.path(), "--temp", "0"});
  EXPECT_EQ(ended.status, 130);
  const Ended resumed = run("-n 3 --temp 0 -m " + model.path());
  const size_t before = result(resumed)["prompt_tokens"];
  const Ended whole =
      run_program("run --json --ignore-eos --temp 0 -p abc -m " + model.path() + " -n " +
                  std::to_string(before + 3 - 7));  // the begin token, three of the space, three letters
  std::vector<int> tail = ids(whole);
  tail.erase(tail.begin(), tail.end() - 3);
  EXPECT_EQ(ids(resumed), tail);
}

}  // namespace
}  // namespace contexture
