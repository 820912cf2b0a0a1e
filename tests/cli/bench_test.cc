// bench, as it is typed: what it says, not how fast it is.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"

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

TEST(Bench, LeavesATestOutAndDraws) {
  const std::string file = testing::TempDir() + "bench_test.svg";
  const std::vector<json> lines = benched("-p 0 -n 2 -d 0,32 --plot " + file);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["test"], "decode");
  std::ifstream in(file);
  const std::string svg((std::istreambuf_iterator<char>(in)), {});
  EXPECT_THAT(svg, HasSubstr("<svg"));
  EXPECT_THAT(svg, HasSubstr("decode"));
  std::filesystem::remove(file);
}

TEST(Bench, TakesALesserInstructionSetAndNamesThoseThatThereAre) {
#if defined(__x86_64__)
  EXPECT_EQ(benched("-p 0 -n 2 -d 0 --target AVX2").size(), 1u);
#endif
  const Ended ended = run_program("bench --target MMX");
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.err, HasSubstr("this machine has no MMX; it has:"));
}

}  // namespace
}  // namespace contexture
