// What the program does with its streams, signals and files, whatever it computes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Process : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove(session_.path());
    std::filesystem::remove(trace_.path());
  }
  std::string session() const { return " --session " + session_.path(); }

  const std::string story_ = " run -p 'Once upon a time' --temp 0 --ignore-eos ";
  TemporaryFile session_{".session"}, trace_{".gguf"};
};

TEST_F(Process, WhatCannotBeSaidOnStderrCostsNothing) {
  for (const std::string stream : {"/dev/full", "&-"}) {
    std::filesystem::remove(session_.path());
    const Ended run = run_script("$C" + story_ + "-v -n 5" + session() + " 2>" + stream);
    EXPECT_EQ(run.status, 0) << stream;
    EXPECT_TRUE(std::filesystem::exists(session_.path())) << stream;
    EXPECT_EQ(run_script("echo Hello | $C chat -v --temp 0 -n 5 2>" + stream).status, 0) << stream;
    EXPECT_EQ(run_script("$C run -m nope -p a 2>" + stream).status, 1) << stream;
    EXPECT_EQ(run_script("$C nope 2>" + stream).status, 2) << stream;
    EXPECT_EQ(run_script("$C eval kl -f /dev/null 2>" + stream).status, 1) << stream;
  }
  const Ended nobody = run_script("$C" + story_ + "-v -n 5" + session() + " 2> >(exit) ; sleep 0.1");
  EXPECT_EQ(nobody.status, 0) << "nobody reads stderr";
}

TEST_F(Process, ResultsThatCannotBeWrittenAreAFailureAndTheSessionStays) {
  const Ended full = run_script("$C" + story_ + "-n 5" + session() + " >/dev/full");
  EXPECT_EQ(full.status, 1);
  EXPECT_THAT(full.err, HasSubstr("cannot write to stdout"));
  EXPECT_TRUE(std::filesystem::exists(session_.path()));
  const Ended limited = run_script("ulimit -f 1; $C convert models/stories-1m.gguf " + trace_.path());
  EXPECT_EQ(limited.status, 1) << "a limit of a file's size is no signal";
  EXPECT_THAT(limited.err, HasSubstr("ulimit"));
  EXPECT_FALSE(std::filesystem::exists(trace_.path()));
}

TEST_F(Process, AResultThatCannotBeKeptIsAFailureAlsoWhereASignalEndedTheWork) {
  const Ended ended = run_script(
      "ulimit -f 1; $C" + story_ + "-n 2200" + session() + " >" + trace_.path() + ".out & until (($(stat -c %s " +
      trace_.path() + ".out) > 60)); do sleep 0.01; done; kill -TERM $!; wait $!");  // when the story has begun
  EXPECT_EQ(ended.status, 1) << ended.err;
  EXPECT_THAT(ended.err, HasSubstr("cannot write " + session_.path()));
  std::filesystem::remove(trace_.path() + ".out");
}

TEST_F(Process, NoCommandWritesOverTheModelThatItReads) {
  const std::string model = trace_.path();
  std::filesystem::copy_file("models/stories-1m.gguf", model);
  const std::string before = read(model);
  const Ended logits = run_program("logits -m " + model + " -p Hi -o " + model);
  EXPECT_EQ(logits.status, 1);
  EXPECT_THAT(logits.err, HasSubstr("a file that this command reads"));
  EXPECT_EQ(run_program("bench -m " + model + " -p 4 -n 2 -r 1 --plot " + model).status, 1);
  const Ended chat = run_program("chat -n 2 -m " + model, "Hello\n/save " + model + "\n/save README.md\n");
  EXPECT_EQ(chat.status, 0);
  EXPECT_EQ(std::count(chat.err.begin(), chat.err.end(), '\n'), 3) << chat.err;
  EXPECT_THAT(chat.err, HasSubstr("README.md: "));
  EXPECT_EQ(read(model), before);
  EXPECT_THAT(read("README.md"), testing::StartsWith("# Contexture"));
}

TEST_F(Process, TextNeverGoesIntoAFileThatTookTheNumberOfAClosedStream) {
  for (const std::string closed : {">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"}) {
    std::filesystem::remove(trace_.path());
    std::filesystem::remove(session_.path());
    EXPECT_EQ(run_script("$C" + story_ + "-v -n 4" + session() + " --trace " + trace_.path() + " " + closed).status, 0)
        << closed;
    EXPECT_EQ(run_program("verify trace " + trace_.path()).status, 0) << closed;
    EXPECT_EQ(run_program("run -n 1" + session()).status, 0) << closed;
  }
}

TEST_F(Process, ANewSessionIsItsOwnersAloneAndAnOldOneKeepsItsPermissions) {
  const auto mode = [&] {
    struct stat status = {};
    EXPECT_EQ(stat(session_.path().c_str(), &status), 0);
    return status.st_mode & 07777;
  };
  const std::string run = "umask 022; $C" + story_ + "-n 3" + session();
  run_script(run);
  EXPECT_EQ(mode(), 0600u);
  ASSERT_EQ(chmod(session_.path().c_str(), 0640), 0);
  run_script(run);
  EXPECT_EQ(mode(), 0640u);
  std::filesystem::remove(session_.path());
  run_script("umask 022; printf 'Hello\\n/save\\n' | $C chat -n 3" + session());
  EXPECT_EQ(mode(), 0600u) << "chat's sessions too";
}

/// What was shown and what the session goes on with are together what one run shows.
TEST_F(Process, SignalsEndARunAndKeepWhatWasMade) {
  const std::string tokens = kSanitized ? "500" : "2200";
  const std::string whole = run_program("run --temp 0 --ignore-eos -p 'Once upon a time' -n " + tokens).out;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    std::filesystem::remove(session_.path());
    const Ended ended = run_program_and_interrupt({"run", "-p", "Once upon a time", "--temp", "0", "--ignore-eos", "-n",
                                                   tokens, "-c", "2300", "--session", session_.path()},
                                                  signal);
    EXPECT_EQ(ended.status, 128 + signal) << ended.err;
    const Ended rest = run_program("run --temp 0 --ignore-eos -c 2300 -n 20" + session());
    ASSERT_EQ(rest.status, 0) << rest.err;
    const std::string shown = ended.out.substr(0, ended.out.size() - 1) + rest.out.substr(0, rest.out.size() - 1);
    EXPECT_LT(shown.size(), whole.size()) << "it was over before the signal came";
    EXPECT_EQ(shown, whole.substr(0, shown.size())) << signal;
  }
}

TEST_F(Process, ARunWhoseReaderLeavesEndsAndKeepsWhatWasMade) {
  const Ended ended = run_script("$C" + story_ + "-n 2200" + session() + " | head -c 100; exit ${PIPESTATUS[0]}");
  EXPECT_EQ(ended.status, 141);
  EXPECT_EQ(ended.out.size(), 100u);
  EXPECT_EQ(run_program("run -n 1" + session()).status, 0) << "the session is there";
}

TEST_F(Process, SignalsEndAChatAndKeepWhatWasSaid) {
  const std::string pipe = trace_.path() + ".pipe", out = trace_.path() + ".out";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string signal : {"TERM", "HUP"}) {
    std::filesystem::remove(session_.path());
    // It waits for the second message when the signal comes.
    const Ended ended = run_script("$C chat --temp 0 -n 5" + session() + " <" + pipe + " >" + out + " & exec 3>" +
                                   pipe + "; echo Hello >&3; until [[ -s " + out + " ]]; do sleep 0.01; done; kill -" +
                                   signal + " $!; wait $!");
    EXPECT_EQ(ended.status, signal == "TERM" ? 143 : 129) << ended.err;
    const nlohmann::json saved = nlohmann::json::parse(read(session_.path()));
    EXPECT_EQ(saved["messages"].size(), 2u) << ended.err;
    std::filesystem::remove(out);
  }
  std::filesystem::remove(pipe);
}

}  // namespace
}  // namespace contexture
