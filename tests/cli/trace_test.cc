// run --trace and verify trace, as a user meets them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "cli/trace_flags.h"
#include "support/temporary_folder.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class TraceCommands : public testing::Test {
 protected:
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) names.push_back(entry.path().filename());
    return names;
  }

  /// The JSON lines of verify trace.
  std::vector<json> rows(int status = 0) const {
    const Ended ended = run_program("verify trace --json " + file_);
    EXPECT_EQ(ended.status, status) << ended.err;
    std::vector<json> rows;
    std::istringstream lines(ended.out);
    for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
    return rows;
  }

  const TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
  const std::string file_ = folder_ / "t.gguf";
};

TEST_F(TraceCommands, WhatARunTracedIsVerified) {
  const std::string story = "run -p 'Once upon a time' -n 8 --temp 0 --ignore-eos ";
  const Ended traced = run_program(story + "--trace " + file_);
  ASSERT_EQ(traced.status, 0) << traced.err;
  EXPECT_EQ(traced.out, run_program(story).out) << "looking on changes nothing";
  EXPECT_THAT(files(), ElementsAre("t.gguf")) << "nothing else is left";

  const Ended table = run_program("verify trace " + file_);
  EXPECT_EQ(table.status, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("layer   step  queries  tokens"));
  EXPECT_THAT(table.out, HasSubstr("32 attentions of contexture-stories-1m: all ok"));

  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), 4u * 8) << "4 layers; the prompt and 7 of the 8 tokens";
  EXPECT_EQ(all.front()["tokens"], 5);
  EXPECT_EQ(all.front()["queries"], 5);
  EXPECT_EQ(all.back()["layer"], 3);
  EXPECT_EQ(all.back()["step"], 7);
  EXPECT_EQ(all.back()["tokens"], 12);
  for (const json& row : all) {
    EXPECT_EQ(row["ok"], true) << row;
    // `ok` is by a bound derived for each. This is for its size: heads of 32 channels and 12 tokens are some hundred
    // roundings of 2^-24, of terms no more than a few times the output: 1e-5 or so.
    EXPECT_LT(row["relative_error"], 1e-4) << row;
    EXPECT_GT(row["max_abs_error"], 0) << "float32 rounds";
  }
}

TEST_F(TraceCommands, EveryCacheAndAChoiceOfLayersAndSteps) {
  const std::string prompt = (folder_ / "prompt.txt").string();
  std::ofstream text(prompt);
  for (int i = 0; i < 40; ++i) text << "Tom hid the red lamp in the barn. ";
  text.close();
  for (const char* cache :
       {"--cache contiguous --ctk q8_0 --ctv q4_0", "--cache paged --page-tokens 8 --ctk bf16 --ctv f32",
        "--cache mixed --hot-tokens 8 --sink-tokens 2 --cold-k-format q8_0", "--cache mixed --hot-tokens 8 --rotate"}) {
    const Ended traced = run_program("run -f " + prompt + " -n 6 --ignore-eos --temp 0 " + cache + " --trace " + file_ +
                                     " --trace-layers 0,2- --trace-steps 0,4-");
    ASSERT_EQ(traced.status, 0) << cache << ": " << traced.err;
    const std::vector<json> all = rows();
    size_t late = 0;
    for (const json& row : all) {
      EXPECT_EQ(row["ok"], true) << cache << row;
      EXPECT_NE(row["layer"], 1);
      EXPECT_TRUE(row["step"] == 0 || row["step"] >= 4);
      late += row["step"] != 0;
    }
    EXPECT_GE(late, 3u) << cache;
    EXPECT_EQ(all.size() % 3, 0u);
  }
}

TEST_F(TraceCommands, AWrongTraceIsExitOne) {
  ASSERT_EQ(run_program("run -p 'Once upon a time' -n 2 --temp 0 --ignore-eos --trace " + file_).status, 0);
  std::fstream damaged(file_, std::ios::binary | std::ios::in | std::ios::out);
  damaged.seekp(-1, std::ios::end);
  // The last bytes of the file are of the last attention's V.
  for (int i = 0; i < 32; ++i) damaged.seekp(-1 - i, std::ios::end).put(0x35);
  damaged.close();
  const Ended ended = run_program("verify trace " + file_);
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.out, HasSubstr("WRONG"));
  EXPECT_THAT(ended.err, HasSubstr("1 of 8 attentions"));
  const std::vector<json> all = rows(1);
  EXPECT_EQ(std::count_if(all.begin(), all.end(), [](const json& row) { return row["ok"] == false; }), 1);
  EXPECT_EQ(all.back()["ok"], false);
}

TEST_F(TraceCommands, WhatIsNoTraceOrCannotBeWrittenIsOneLine) {
  const auto expect_error = [](const std::string& arguments, const std::string& says) {
    const Ended ended = run_program(arguments);
    EXPECT_EQ(ended.status, 1) << arguments;
    EXPECT_THAT(ended.err, HasSubstr(says));
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
    EXPECT_EQ(ended.out, "");
  };
  expect_error("verify trace /no/such/file.gguf", "/no/such/file.gguf");
  expect_error("verify trace README.md", "no GGUF file");
  expect_error("verify trace models/stories-1m.gguf", "is no trace");
  const std::string cut = (folder_ / "cut.gguf").string();
  std::ifstream whole("models/stories-1m.gguf", std::ios::binary);
  std::string head(5000, 0);
  whole.read(head.data(), 5000);
  std::ofstream(cut, std::ios::binary) << head;
  expect_error("verify trace " + cut, "trace again");
  std::filesystem::remove(cut);
  expect_error("run -p a -n 1 --trace /no/such/folder/t.gguf", "/no/such/folder");
  expect_error("run -p a -n 1 --trace " + folder_.string(), "is no trace");
  expect_error("run -p a -n 1 --trace " + file_ + " --trace-layers 9", "layers 0 to 3");
  EXPECT_THAT(files(), ElementsAre());
  for (const char* wrong :
       {"verify", "verify trace", "run -p a --trace-layers 0", "run -p a --trace x --trace-layers a",
        "run -p a --trace x --trace-steps 3-1", "run -p a --trace x --trace-steps 1,"}) {
    EXPECT_EQ(run_program(wrong).status, 2) << wrong;
  }
  const Ended nothing = run_program("run -p a -n 1 --trace " + file_ + " --trace-steps 70-");
  EXPECT_EQ(nothing.status, 1);
  EXPECT_THAT(nothing.err, HasSubstr("nothing was traced"));
  EXPECT_THAT(files(), ElementsAre());
}

TEST_F(TraceCommands, AnInterruptedRunKeepsWhatItTraced) {
  // Without a prompt, what it says first is a token: a step is done by then.
  const Ended ended =
      run_program_and_interrupt({"run", "-n", "1500", "--ignore-eos", "--trace", file_, "--trace-steps", "0-20"});
  EXPECT_EQ(ended.status, 130) << ended.err;
  EXPECT_THAT(files(), ElementsAre("t.gguf"));
  EXPECT_GE(rows().size(), 1u);
}

TEST(NumberList, ReadsListsAndNothingElse) {
  using cli::NumberList;
  const auto list = NumberList::parse("0,3-5,9-");
  ASSERT_TRUE(list);
  std::vector<size_t> in;
  for (size_t i = 0; i < 12; ++i) {
    if (list->has(i)) in.push_back(i);
  }
  EXPECT_THAT(in, ElementsAre(0, 3, 4, 5, 9, 10, 11));
  EXPECT_EQ(list->largest(), 9u);
  EXPECT_EQ(NumberList::parse("2-7,1")->largest(), 7u);
  for (const char* wrong :
       {"", ",", "1,", "-1", "3-2", "a", "1 2", "1-2-3", "1--", "99999999999999999999", "0x1", "2-b"}) {
    EXPECT_FALSE(NumberList::parse(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace contexture
