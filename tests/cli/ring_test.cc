#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kRingStory = "-p 'Once upon a time' --temp 0 -n 40 --json ";

json json_of(const Ended& ended) {
  EXPECT_EQ(ended.status, 0) << ended.err;
  return ended.status == 0 ? json::parse(ended.out) : json();
}

TEST(RingCommands, LocalRanksTellTheSameStory) {
  const json one = json_of(run_program("run " + kRingStory));
  for (const std::string flags :
       {"--local-ranks 1", "--local-ranks 4", "--local-ranks 3 --ring-mode pass-q --cache contiguous",
        "--local-ranks 2 --ring-mode pass-kv --page-tokens 8", "--local-ranks 8"}) {
    const json ring = json_of(run_program("run --ring " + flags + " " + kRingStory));
    EXPECT_EQ(ring["text"], one["text"]) << flags;
    EXPECT_EQ(ring["token_ids"], one["token_ids"]);
    size_t tokens = 0;
    for (const json& rank : ring["ranks"]) tokens += rank["tokens"].get<size_t>();
    EXPECT_EQ(tokens, one["prompt_tokens"].get<size_t>() + one["generated_tokens"].get<size_t>() - 1);
  }
}

void expect_same_story(const std::string& run) {
  const std::string command = "run " + run + " --temp 0 -ctk f32 -ctv f32 --json";
  const json one = json_of(run_program(command));
  for (const int ranks : {1, 2, 3, 4, 8}) {
    const json ring = json_of(run_program(command + " --ring --local-ranks " + std::to_string(ranks)));
    EXPECT_EQ(ring["text"], one["text"]) << ranks << " ranks";
    EXPECT_EQ(ring["token_ids"], one["token_ids"]);
  }
}

/// Rank 0 makes a pool of its own for the questions: the others hear of it.
TEST(RingCommands, NeedlesAreFoundOverRanks) {
  for (const std::string layout : {"paged", "contiguous", "mixed --cold-k-format f16 --cold-v-format f16"}) {
    const Ended ended = run_program("eval needle --ring --local-ranks 3 -t 3 --depths 700 --json --cache " + layout);
    EXPECT_EQ(ended.status, 0) << ended.err;
    EXPECT_THAT(ended.out, HasSubstr("\"accuracy\":1.0")) << layout;
  }
}

TEST(RingCommands, TheNeedleModelTellsTheSameStory) {
  expect_same_story("-m models/needle.gguf -p 'a k7 Q3 b c k7' -n 3");
}

TEST(RingCommands, ARealModelTellsTheSameStory) {
  const std::string file = "../shared/data/stories260k/stories260K.bin";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no " << file << " here";
  expect_same_story("-m " + file + " -n 256");
}

TEST(RingCommands, DrawnTextIsTheSameToo) {
  const std::string drawn = "-p 'One day' --temp 0.9 --seed 7 -n 30 --json";
  EXPECT_EQ(json_of(run_program("run --ring --local-ranks 3 " + drawn))["text"],
            json_of(run_program("run " + drawn))["text"]);
}

TEST(RingCommands, ConversationsGoOnOverRanks) {
  const std::string turns =
                        "Tom hid the red lamp in the barn. Where is the red lamp?\nAnn put the blue ball in the box. "
                        "Where is the blue ball?\nWhere is the red lamp?\n",
                    flags = "--temp 0 -n 12";
  const Ended one = run_program("chat " + flags, turns),
              ring = run_program("chat --ring --local-ranks 3 " + flags, turns);
  EXPECT_EQ(ring.status, 0) << ring.err;
  EXPECT_EQ(ring.out, one.out);
}

TEST(RingCommands, WhatDoesNotGoTogetherIsSaid) {
  for (const char* flag : {"--local-ranks 2", "--ring-mode pass-q", "--ring-flops 1e9", "--ring-timeout 3"}) {
    const Ended ended = run_program(std::string("run -p a -n 1 ") + flag);
    EXPECT_EQ(ended.status, 2) << flag;
    EXPECT_THAT(ended.err, HasSubstr("requires --ring"));
  }
  for (const char* flag : {"--session x", "--trace x.gguf", "--context-dir x"}) {
    const Ended ended = run_program(std::string("run --ring --local-ranks 2 -p a -n 1 ") + flag);
    EXPECT_EQ(ended.status, 1) << flag;
    EXPECT_THAT(ended.err, HasSubstr("leave it out with --ring"));
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  }
  Ended ended = run_program("chat --ring --local-ranks 2 --context-dir x");
  EXPECT_THAT(ended.err, HasSubstr("leave it out with --ring"));
  ended = run_program("run --ring --local-ranks 3 -m nowhere.gguf -p a");
  EXPECT_EQ(ended.status, 1);
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  // All ranks find the same mistake; it is told once.
  ended = run_program("run --ring --local-ranks 4 -p 'much too long a prompt for this' -c 2 -n 1");
  EXPECT_EQ(ended.status, 1);
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
}

TEST(RingCommands, DemoTellsTheStory) {
  const Ended people = run_program("ring demo");
  EXPECT_EQ(people.status, 0) << people.err;
  for (const char* part : {"rank 0: 0 to 7, 56 to 63\n", "rank 3: 24 to 39\n", "exact to f32", "same bits: yes",
                           "rank 0: 17, rank 1: 17, rank 2: 17, rank 3: 17; 68 in all"}) {
    EXPECT_THAT(people.out, HasSubstr(part));
  }
  const json demo = json_of(run_program("ring demo --ranks 3 --tokens 50 --head-dim 24 --heads 6 --kv-heads 2 --json"));
  EXPECT_TRUE(demo["ok"]);
  EXPECT_LE(demo["pass_kv"]["max_abs_error"], 1e-5);
  EXPECT_GT(demo["pass_kv"]["max_abs_error"], 0);
  EXPECT_EQ(demo["shards"].size(), 3u);
  EXPECT_EQ(demo["decode"][0]["held"].size(), 3u);
  EXPECT_EQ(demo["selector"].size(), 9u);
}

TEST(RingCommands, PlanChoosesAndDraws) {
  const json cold = json_of(run_program("ring plan --tokens 128000 --ranks 4 --json --simulate"));
  EXPECT_EQ(cold["choice"], "pass-kv");
  EXPECT_NEAR(cold["pass_kv"]["seconds"], 10.95, 1);
  EXPECT_EQ(cold["pass_kv"]["simulation"]["most_tokens"], 32000);
  EXPECT_EQ(json_of(run_program("ring plan --tokens 1280 --cached 126720 --json"))["choice"], "pass-q");
  EXPECT_EQ(cold["over_ranks"][4]["ranks"], 16);
  EXPECT_NEAR(cold["over_ranks"][4]["million_tokens_seconds"], 78.5, 1);
  const json one = json_of(run_program("ring plan --tokens 32768 --ranks 1 --json"));
  EXPECT_NEAR(one["pass_kv"]["seconds"], 7.66, 0.2);
  EXPECT_EQ(one["pass_kv"]["others_seconds"], 0);
  EXPECT_NEAR(one["half_rate_rows"], 200, 5);
  // Rates are carried out: half of the memory's share, twice the rows.
  EXPECT_NEAR(json_of(run_program("ring plan --ranks 1 --weights-share 0.3035 --json"))["half_rate_rows"], 400, 10);
  EXPECT_NEAR(json_of(run_program("ring plan --others-share 0.1 --json"))["pass_q"]["others_seconds"],
              cold["pass_q"]["others_seconds"].get<double>() * 0.0429, 1e-3);
  const TemporaryFile plot(".svg");
  const Ended people = run_program("ring plan --plot " + plot.path());
  EXPECT_EQ(people.status, 0) << people.err;
  EXPECT_THAT(people.out, HasSubstr("choice: pass-kv"));
  EXPECT_THAT(people.out, HasSubstr("K and V hide behind attention on up to "));
  const std::string ranks = plot.path().substr(0, plot.path().size() - 4) + "-ranks.svg";
  EXPECT_TRUE(std::filesystem::exists(ranks));
  std::filesystem::remove(ranks);
}

TEST(RingCommands, OverlapIsMeasuredAndDrawn) {
  if (kSanitized) GTEST_SKIP() << "times mean nothing where every access is checked";
  const TemporaryFile plot(".svg");
  const json overlap = json_of(run_program("ring overlap --tries 1 --json --plot " + plot.path()));
  for (const char* pass : {"pass_kv", "pass_q"}) {
    const json& points = overlap[pass]["points"];
    EXPECT_EQ(points.size(), 10u);
    EXPECT_GT(points[0]["predicted_exposed_seconds"].get<double>(), 0);  // how they compare is tests/ring's matter
    EXPECT_GT(points[0]["measured_exposed_seconds"].get<double>(), 0);
    EXPECT_EQ(points[9]["predicted_exposed_seconds"], 0);
  }
  const std::string other = plot.path().substr(0, plot.path().size() - 4) + "-pass-q.svg";
  EXPECT_TRUE(std::filesystem::exists(other));
  std::filesystem::remove(other);
}

TEST(RingCommands, PlanOfARankIsAShare) {
  const json one = json_of(run_program("plan -c 4096 --json")),
             four = json_of(run_program("plan -c 4096 --ring 4 --json"));
  EXPECT_EQ(four["weights_bytes"], one["weights_bytes"]);
  EXPECT_NEAR(four["cache_bytes"].get<double>(), one["cache_bytes"].get<double>() / 4,
              0.02 * one["cache_bytes"].get<double>());
  EXPECT_EQ(four["tokens_a_rank"], 1024);
  EXPECT_THAT(run_program("plan -c 4096 --ring 4").out, HasSubstr("up to 1024 of 4096 tokens"));
  const json longest_one = json_of(run_program("plan --memory 64MB --json"));
  const json longest = json_of(run_program("plan --memory 64MB --ring 4 --json"));
  EXPECT_GT(longest["max_context"].get<double>(), 2.5 * longest_one["max_context"].get<double>());
}

/// Ranks as processes.
class MpiCommands : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "Open MPI's own leaks and races would be reported";
    if (std::system("command -v mpirun >/dev/null 2>&1") != 0) GTEST_SKIP() << "no mpirun on this machine";
    if (run_program("run --ring -p a -n 1").err.find("no ranks over MPI") != std::string::npos) {
      GTEST_SKIP() << "built without MPI";
    }
  }
  static std::string mpirun(int ranks) {
    return "env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl=self,vader,tcp "
           "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 "
           "mpirun --oversubscribe -n " +
           std::to_string(ranks) + " ";
  }
  /// As run_program, over ranks.
  static Ended run_ranks(int ranks, const std::string& arguments) {
    return run_shell(mpirun(ranks) + contexture_program() + " " + arguments);
  }
  static Ended run_shell(const std::string& command) {
    const TemporaryFile out(".out"), err(".err");
    Ended ended;
    const int status = std::system((command + " >" + out.path() + " 2>" + err.path() + " </dev/null").c_str());
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    for (const auto& [path, text] : {std::pair{out.path(), &ended.out}, {err.path(), &ended.err}}) {
      std::ifstream file(path, std::ios::binary);
      text->assign(std::istreambuf_iterator<char>(file), {});
    }
    return ended;
  }
};

TEST_F(MpiCommands, RanksTellTheSameStory) {
  const json one = json_of(run_program("run " + kRingStory));
  for (const int ranks : {1, 2, 3, 4}) {
    for (const std::string mode : {"pass-kv", "pass-q"}) {
      const json ring = json_of(run_ranks(ranks, "run --ring -t 1 --ring-mode " + mode + " " + kRingStory));
      EXPECT_EQ(ring["text"], one["text"]) << ranks << " ranks, " << mode;
      EXPECT_EQ(ring["ranks"].size(), static_cast<size_t>(ranks));
    }
  }
}

TEST_F(MpiCommands, OneMistakeIsToldAndEndsAll) {
  const Ended ended = run_ranks(3, "run --ring -t 1 -c 2 -p 'much too long a prompt for this' -n 1");
  EXPECT_NE(ended.status, 0);
  EXPECT_THAT(ended.err, HasSubstr("error: the prompt has"));
}

TEST_F(MpiCommands, RanksThatDifferAreToldHow) {
  // The last of three ranks gets a flag of its own.
  const auto differ = [](const std::string& flags, const std::string& last) {
    const std::string program = contexture_program() + " run --ring -t 1 -p Once --temp 0 -n 5 " + flags;
    return run_shell(mpirun(3) + "sh -c 'if [ $OMPI_COMM_WORLD_RANK = 2 ]; then exec " + program + " " + last +
                     "; fi; exec " + program + "'");
  };
  const struct {
    std::string flags, last, told;
  } cases[] = {
      {"", "-m models/needle.gguf", "error: rank 2 and rank 0 do not agree on the model (llama of 2 layers, "},
      {"", "-ctk q8_0", "error: rank 2 and rank 0 do not agree on how the context is held (paged"},
  };
  for (const auto& c : cases) {
    const Ended ended = differ(c.flags, c.last);
    EXPECT_NE(ended.status, 0) << c.last;
    EXPECT_THAT(ended.err, HasSubstr(c.told)) << c.last;
  }
  // The prompt and how tokens are chosen are rank 0's alone.
  const Ended alike = differ("-c 50", "");
  for (const char* last : {"--top-k 7", "--no-bos"}) {
    const Ended ended = differ("-c 50", last);
    EXPECT_EQ(ended.status, 0) << last;
    EXPECT_EQ(ended.out, alike.out) << last;
  }
}

TEST_F(MpiCommands, RanksAreStartedOneWay) {
  const Ended ended = run_ranks(2, "run --ring --local-ranks 2 -p a -n 1");
  EXPECT_NE(ended.status, 0);
  EXPECT_THAT(ended.err, HasSubstr("mpirun started 2 ranks"));
  EXPECT_THAT(run_program("run --ring -p a -n 1").err, HasSubstr("there is one rank"));
}

/// Not so where it has ended and nobody has asked how: a machine's first program may never ask.
bool is_running(pid_t pid) {
  std::string word;
  char state = 'Z';
  std::ifstream("/proc/" + std::to_string(pid) + "/stat") >> word >> word >> state;
  return state != 'Z';
}

TEST_F(MpiCommands, AKilledRankEndsTheOthers) {
  const TemporaryFile pids(".pids"), out(".out"), err(".err");
  // Each rank writes down its process before it becomes the program.
  const std::string command = "exec " + mpirun(3) + "sh -c 'echo $$ >>" + pids.path() + "; exec " +
                              contexture_program() + " run --ring -t 1 -p Once -n -1 --ignore-eos -c 100000' >" +
                              out.path() + " 2>" + err.path() + " </dev/null";
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  std::error_code ignored;
  for (int i = 0; i < 2000 && (!std::filesystem::exists(out.path(), ignored) ||
                               std::filesystem::file_size(out.path(), ignored) < 200);
       ++i) {
    usleep(10000);
  }
  pid_t victim = 0;
  std::ifstream(pids.path()) >> victim;
  ASSERT_GT(victim, 1);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(kill(victim, SIGKILL), 0);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 20);
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  // None is left.
  std::ifstream file(pids.path());
  for (pid_t pid; file >> pid;) {
    for (int i = 0; i < 500 && is_running(pid); ++i) usleep(10000);
    EXPECT_FALSE(is_running(pid)) << pid;
  }
}

}  // namespace
}  // namespace contexture
