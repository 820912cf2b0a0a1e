#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "verify/faults.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(VerifyLayouts, TheBundledModelHolds) {
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
  }
  EXPECT_EQ(layouts, (std::vector<std::string>{"contiguous", "paged", "mixed", "contiguous", "paged", "mixed"}));
}

TEST(VerifyLayouts, EveryPlantIsFound) {
  for (const Fault& fault : all_faults()) {
    const Ended ended = run_program(fmt::format("verify layouts --prompt-tokens 300 --plant {}", fault.name));
    EXPECT_EQ(ended.status, 1) << fault.name;
    EXPECT_THAT(ended.out, HasSubstr("FAILED")) << fault.name;
    EXPECT_THAT(ended.err, HasSubstr("error: ")) << fault.name;
  }
}

TEST(VerifyLayouts, TextsAndWrongUsage) {
  const std::string text(400, 'a');
  const Ended ended = run_program("verify layouts --cache paged --ctk q8_0 --ctv q8_0 -p " + text);
  EXPECT_EQ(ended.status, 0) << ended.out << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("paged       q8_0  q8_0"));
  EXPECT_EQ(run_program("verify layouts -p a").status, 1);  // too short
  const Ended missed = run_program("verify layouts --cache contiguous --ctk f32 --ctv f32 --plant hash");
  EXPECT_EQ(missed.status, 1);
  EXPECT_THAT(missed.err, HasSubstr("was not found"));
  for (const char* wrong : {"--plant none", "--cache ring", "--ctk q5_0", "-p a -f b", "--prompt-tokens 3"}) {
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
