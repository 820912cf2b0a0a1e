#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "support/random_model.h"
#include "verify/faults.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;

/// A model that is quickly run; a token a byte.
class VerifyLayoutsOfASmallModel : public testing::Test {
 protected:
  VerifyLayoutsOfASmallModel() {
    write_random_model({.layers = 1, .ffn_dim = 32, .vocabulary = 259}, model_.path(), /*with_vocabulary=*/true);
  }

  Ended verify(const std::string& flags) const {
    return run_program("verify layouts -m " + model_.path() + " " + flags);
  }

  TemporaryFile model_;
};

TEST(VerifyLayouts, TheBundledModelHolds) {
#if defined(CONTEXTURE_SANITIZES_ADDRESSES)
  GTEST_SKIP() << "takes minutes; the tests of the room verify, and those of a small model below, run the same code";
#endif
  const Ended ended = run_program("verify layouts --prompt-tokens 300 --ctk f16 --ctv f32,q4_0 --json");
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_EQ(ended.err, "");
  std::istringstream lines(ended.out);
  std::vector<std::string> layouts;
  for (std::string line; std::getline(lines, line);) {
    const json j = json::parse(line);
    layouts.push_back(j["layout"]);
    EXPECT_EQ(j["k_format"], "f16");
    EXPECT_TRUE(j["v_format"] == "f32" || j["v_format"] == "q4_0");
    EXPECT_EQ(j["bit_equal"], true);
    EXPECT_EQ(j["ok"], true);
    EXPECT_GT(j["max_abs_error"], 0);
    EXPECT_GT(j["kl"], 0);
    EXPECT_EQ(j.contains("cold_k_format"), j["layout"] == "mixed");
    EXPECT_TRUE(j["k_rotated"].is_boolean());
  }
  EXPECT_EQ(layouts, (std::vector<std::string>{"contiguous", "paged", "mixed", "contiguous", "paged", "mixed"}));
}

TEST_F(VerifyLayoutsOfASmallModel, TakesTheFlagsOfCaches) {
  const Ended ended = verify(
      "--prompt-tokens 220 -ctk q4_0 -ctv q4_0 -t 2 --page-tokens 8,64 --hot-tokens 20 --sink-tokens 7 "
      "--cold-k-format q8_0 --cold-v-format f16 --no-rotate --json");
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  std::istringstream lines(ended.out);
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const json j = json::parse(line);
    EXPECT_EQ(j["k_rotated"], false);
    EXPECT_EQ(j["v_rotated"], false);
    if (j["layout"] != "mixed") continue;
    EXPECT_EQ(j["hot_tokens"], 20);
    EXPECT_EQ(j["sink_tokens"], 7);
    EXPECT_EQ(j["cold_k_format"], "q8_0");
    EXPECT_EQ(j["cold_v_format"], "f16");
  }
  EXPECT_EQ(count, 3u);
  EXPECT_THAT(verify("--prompt-tokens 100 --cache paged -ctk q8_0 -ctv f16 --rotate").out, HasSubstr(" K, V "));
}

TEST(VerifyLayouts, EveryPlantIsFound) {
#if defined(CONTEXTURE_SANITIZES_ADDRESSES)
  GTEST_SKIP() << "takes many minutes; the tests of the room verify plant the same faults";
#endif
  for (const Fault& fault : all_faults()) {
    const Ended ended = run_program(fmt::format("verify layouts --prompt-tokens 300 --plant {}", fault.name));
    EXPECT_EQ(ended.status, 1) << fault.name;
    EXPECT_THAT(ended.out, HasSubstr("FAILED")) << fault.name;
    EXPECT_THAT(ended.err, HasSubstr("error: ")) << fault.name;
  }
}

TEST_F(VerifyLayoutsOfASmallModel, TextsAndWrongUsage) {
  const std::string text(150, 'a');
  const Ended ended = verify("--cache paged --ctk q8_0 --ctv q8_0 -p " + text);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("paged       q8_0     q8_0"));
  EXPECT_EQ(ended.err, "");
  EXPECT_EQ(verify("-p a").status, 1);  // too short
  const Ended missed = verify("--prompt-tokens 100 --cache contiguous --ctk f32 --ctv f32 --plant hash");
  EXPECT_EQ(missed.status, 1);
  EXPECT_THAT(missed.err, HasSubstr("was not found"));
  for (const char* wrong :
       {"--plant none", "--cache ring", "--ctk q5_0", "-p a -f b", "--prompt-tokens 3", "--page-tokens 9", "-c 5"}) {
    EXPECT_EQ(run_program(std::string("verify layouts ") + wrong).status, 2) << wrong;
  }
}

TEST(VerifyLayouts, CtrlCEndsIt) {
  const Ended ended = run_program_and_interrupt({"verify", "layouts"});
  EXPECT_EQ(ended.status, 130);
  EXPECT_EQ(ended.out.find("FAILED"), std::string::npos);
}

}  // namespace
}  // namespace contexture
