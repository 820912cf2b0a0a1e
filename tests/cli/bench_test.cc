// bench, as it is typed: what it says, not how fast it is.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/temporary_folder.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<json> benched(const std::string& arguments) {
  const Ended ended = run_program("bench -r 1 --json " + arguments);
  EXPECT_EQ(ended.status, 0) << ended.err;
  std::vector<json> lines;
  std::istringstream in(ended.out);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

TEST(Bench, SaysALineATestWithTheBytesThatAreRead) {
  const std::vector<json> lines = benched("-p 8 -n 4 -d 0,64 -ctk f16 -ctv q8_0");
  ASSERT_EQ(lines.size(), 4u);
  const std::vector<std::string> tests = {"prefill", "decode", "prefill", "decode"};
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["test"], tests[i]);
    EXPECT_EQ(lines[i]["depth"], i / 2 * 64);
    EXPECT_EQ(lines[i]["tokens"], i % 2 ? 4 : 8);
    EXPECT_EQ(lines[i]["k_format"], "f16");
    EXPECT_EQ(lines[i]["v_format"], "q8_0");
    for (const char* key : {"tokens_per_second", "bytes_per_token", "read_bandwidth_gbps", "bandwidth_share"}) {
      EXPECT_GT(lines[i][key].get<double>(), 0) << key;
    }
  }
  // What 64 tokens more of context take is read.
  const double more = lines[3]["bytes_per_token"].get<double>() - lines[1]["bytes_per_token"].get<double>();
  const json plan = json::parse(run_program("plan -c 64 -ctk f16 -ctv q8_0 --cache contiguous --json").out);
  EXPECT_EQ(more, plan["cache_bytes"].get<double>());
}

TEST(Bench, SequencesDecodedTogetherShareTheWeightsThatAreRead) {
  const std::vector<json> alone = benched("-p 0 -n 2 -d 0,64"), four = benched("-p 0 -n 2 -d 64 --sequences 4");
  ASSERT_EQ(alone.size(), 2u);
  ASSERT_EQ(four.size(), 1u);
  EXPECT_EQ(four[0]["sequences"], 4);
  const double shallow = alone[0]["bytes_per_token"], deep = alone[1]["bytes_per_token"];
  const double context = (deep - shallow) / 64 * 65;  // two tokens at 64 see 65 on average
  EXPECT_DOUBLE_EQ(four[0]["bytes_per_token"].get<double>(), (deep - context) / 4 + context);
}

TEST(Bench, LeavesATestOutAndDraws) {
  const TemporaryFile drawn(".svg");
  const std::string& file = drawn.path();
  const std::vector<json> lines = benched("-p 0 -n 2 -d 0,32 --plot " + file);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["test"], "decode");
  std::ifstream in(file);
  const std::string svg((std::istreambuf_iterator<char>(in)), {});
  EXPECT_THAT(svg, HasSubstr("<svg"));
  EXPECT_THAT(svg, HasSubstr("decode"));
}

TEST(Bench, SeveralPromptsAreDrawnAgainstTheirLength) {
  const TemporaryFile drawn(".svg");
  const std::string& file = drawn.path();
  const std::vector<json> lines = benched("-p 3,7 -n 0 -d 0,16 --plot " + file);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[1]["tokens"], 7);
  EXPECT_EQ(lines[3]["depth"], 16);
  std::ifstream in(file);
  const std::string svg((std::istreambuf_iterator<char>(in)), {});
  EXPECT_THAT(svg, HasSubstr("tokens of the prompt"));
  EXPECT_THAT(svg, HasSubstr("depth 16"));
}

TEST(Bench, TakesALesserInstructionSetAndNamesThoseThatThereAre) {
#if defined(__x86_64__)
  EXPECT_EQ(benched("-p 0 -n 2 -d 0 --target AVX2").size(), 1u);
#endif
  const Ended ended = run_program("bench --target MMX");
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.err, HasSubstr("this machine has no MMX; it has:"));
}

/// What tools/compare_peers.sh prints, and its exit status.
Ended compared(const std::string& arguments) {
  const std::string command =
      "CONTEXTURE=" + contexture_program() + " THREADS=1 ROUNDS=1 tools/compare_peers.sh " + arguments;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return {};
  Ended ended;
  for (int c; (c = fgetc(pipe)) != EOF;) ended.out += static_cast<char>(c);
  const int status = pclose(pipe);
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ended;
}

// A peer that says of itself that it decodes 9 tokens a second, 10 with flash attention.
TEST(ComparePeers, SetsTheFasterSettingOfThePeerAgainstOurs) {
  const TemporaryFolder temporary;
  const std::filesystem::path& folder = temporary.path();
  write_random_model({}, (folder / "1b-q8_0.gguf").string());
  const std::string peer = (folder / "peer").string();
  std::ofstream(peer) << "#!/bin/sh\n[ $# = 9 ] && [ \"$1 $3 $4 $5 $6 $7 $9\" = 'bench 1 0 0 32 f16 1' ] || exit 3\n"
                         "echo '{\"test\": \"prefill\", \"tokens_per_second\": 1000}'\n"
                         "echo '{\"test\": \"decode\", \"tokens_per_second\": '$((9 + $8))'}'\n";
  std::filesystem::permissions(peer, std::filesystem::perms::owner_all);
  const Ended ended = compared(peer + " " + folder.string() + " q8_0-decode");
  ASSERT_EQ(ended.status, 0) << ended.out;
  std::smatch row;
  ASSERT_TRUE(std::regex_search(
      ended.out, row, std::regex(R"(\| q8_0 decode 32 \| 0 \| f16 \| ([0-9.]+) \| 10\.0 \| ([0-9.]+) \| [0-9]+ % \|)")))
      << ended.out;
  EXPECT_NEAR(std::stod(row[2]), std::stod(row[1]) / 10, 0.011);  // both are rounded
  EXPECT_EQ(compared(peer + " " + folder.string() + " no-such-test").status, 1);
}

}  // namespace
}  // namespace contexture
