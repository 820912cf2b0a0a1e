// eval perplexity and eval kl, as they are typed.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

const std::string kStory =
    "Once upon a time, a little hedgehog named Pip lived by the sea. Pip hid the brown ribbon on the shelf. Pip found "
    "a "
    "silver coin. It was magic! Tom hid the red lamp in the barn. Where is the brown ribbon? It is on the shelf.";

json result_of(const std::string& arguments, const std::string& input = kStory) {
  const Ended ended = run_program(arguments + " --json", input);
  EXPECT_EQ(ended.status, 0) << arguments << ": " << ended.err;
  EXPECT_EQ(std::count(ended.out.begin(), ended.out.end(), '\n'), 1) << ended.out;
  return ended.status == 0 ? json::parse(ended.out) : json();
}

/// exit 2 or 1, and what the last lines say.
void expect_refused(const std::string& arguments, int status, const std::string& says) {
  const Ended ended = run_program(arguments, kStory);
  EXPECT_EQ(ended.status, status) << arguments << ": " << ended.err;
  EXPECT_EQ(ended.out, "");
  EXPECT_THAT(ended.err, HasSubstr(says));
}

TEST(Eval, PerplexityIsWhatTheLogitsSay) {
  const TemporaryFile out(".npy");
  const json ids = json::parse(run_program("tokenize --json -", kStory).out)["ids"];
  std::string list;
  for (const int id : ids) list += fmt::format("{}{}", list.empty() ? "" : ",", id);
  ASSERT_EQ(run_program("logits --tokens " + list + " -o " + out.path()).status, 0);
  std::ifstream file(out.path(), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  constexpr size_t vocabulary = 1280;
  std::vector<float> logits(ids.size() * vocabulary);
  std::memcpy(logits.data(), bytes.data() + bytes.size() - logits.size() * 4, logits.size() * 4);
  double nats = 0;
  for (size_t i = 1; i < ids.size(); ++i) {
    double sum = 0;
    const float* row = &logits[(i - 1) * vocabulary];
    for (size_t id = 0; id < vocabulary; ++id) sum += std::exp(static_cast<double>(row[id]));
    nats += std::log(sum) - static_cast<double>(row[ids[i].get<size_t>()]);
  }
  nats /= static_cast<double>(ids.size() - 1);

  const json result = result_of("eval perplexity -f -");
  // The same logits; float64 sums over 1,280 of them and some 80 tokens, in any order: 1,360 roundings of 2^-53 are
  // 1.5e-13 of a sum of positive terms, and exp makes a share of what is off absolutely.
  EXPECT_NEAR(result["perplexity"].get<double>(), std::exp(nats), 1e-12 * std::exp(nats));
  EXPECT_NEAR(result["nats_per_token"].get<double>(), nats, 1e-12);
  EXPECT_EQ(result["tokens"], ids.size() - 1);
  EXPECT_EQ(result["context"], ids.size());
  EXPECT_EQ(result["layout"], "paged");
  EXPECT_EQ(result["k_format"], "f16");
  EXPECT_GT(result["standard_error"].get<double>(), 0);
  // 4 layers, 2 KV heads of 32 channels, K and V in two bytes.
  EXPECT_EQ(result["bytes_per_token"], 4 * 2 * 32 * 2 * 2);
  EXPECT_EQ(result_of("eval perplexity -f - --chunk 5 -t 1 --cache contiguous")["perplexity"], result["perplexity"]);
  EXPECT_THAT(run_program("eval perplexity -f -", kStory).out, HasSubstr("nats a token"));
}

TEST(Eval, WindowsAreAsLongAsAsked) {
  const size_t tokens = json::parse(run_program("tokenize --json -", kStory).out)["ids"].size();
  EXPECT_EQ(result_of("eval perplexity -f - -c 20")["tokens"], tokens - (tokens + 19) / 20);
  EXPECT_EQ(result_of("eval perplexity -f - -c 20 --like-llama-cpp")["tokens"], tokens / 20 * 9)
      << "llama-perplexity scores n_ctx - n_ctx / 2 - 1 tokens of every whole window";
  expect_refused("eval perplexity -f - --like-llama-cpp", 1, "windows of 512");
  expect_refused("eval perplexity -f /nowhere.txt", 1, "/nowhere.txt");
  expect_refused("eval perplexity -f /dev/null", 1, "/dev/null has no two tokens");
  EXPECT_THAT(run_program("eval perplexity -f -", "").err, HasSubstr("stdin has no two tokens"));
  const Ended one = run_program("eval perplexity -f -", "a");
  EXPECT_THAT(one.out, HasSubstr("over 1 token"));
  EXPECT_THAT(one.out, Not(HasSubstr("±"))) << "of one token nobody knows the spread";
  EXPECT_TRUE(result_of("eval perplexity -f -", "a")["standard_error"].is_null());
  EXPECT_EQ(run_program("eval perplexity").status, 2);
}

TEST(Eval, DivergenceFromOneselfIsNone) {
  const json same =
      result_of("eval kl -f - --cache paged -ctk q8_0 -ctv f16 --against '--cache contiguous -ctk q8_0 -ctv f16 -t 1'");
  for (const char* kl : {"kl_mean", "kl_p95", "kl_max"}) EXPECT_EQ(same[kl], 0) << kl;
  for (const char* top : {"top1", "top5"}) EXPECT_EQ(same[top], 1) << top;
  EXPECT_EQ(same["perplexity"], same["reference_perplexity"]);
  EXPECT_EQ(same["against"]["layout"], "contiguous");
  EXPECT_EQ(same["against"]["k_format"], "q8_0");
}

TEST(Eval, FewerBitsDivergeMore) {
  const json q8_0 = result_of("eval kl -f - -ctk q8_0 -ctv q8_0"), q4_0 = result_of("eval kl -f - -ctk q4_0 -ctv q4_0");
  EXPECT_EQ(q8_0["against"]["layout"], "contiguous");
  EXPECT_EQ(q8_0["against"]["k_format"], "f32");
  EXPECT_GT(q8_0["kl_mean"].get<double>(), 0);
  EXPECT_GT(q4_0["kl_mean"].get<double>(), q8_0["kl_mean"].get<double>());
  EXPECT_GT(q4_0["kl_max"].get<double>(), q4_0["kl_p95"].get<double>());
  EXPECT_EQ(q4_0["tokens"], result_of("eval perplexity -f -")["tokens"]);
  EXPECT_EQ(result_of("eval kl -f - --cache mixed --hot-tokens 8 --sink-tokens 2")["cold_k_format"], "q4_0");
}

TEST(Eval, AnotherModelMayBeTheReference) {
  const TemporaryFile one, other, smaller;
  write_random_model({.vocabulary = 259, .seed = 1}, one.path(), true);
  write_random_model({.vocabulary = 259, .seed = 2}, other.path(), true);
  write_random_model({.vocabulary = 258, .seed = 2}, smaller.path(), true);
  const json apart = result_of("eval kl -f - -m " + one.path() + " --against '-m " + other.path() + "'");
  EXPECT_GT(apart["kl_mean"].get<double>(), 0.01);
  EXPECT_EQ(apart["against"]["model"], other.path());
  EXPECT_EQ(apart["against"]["layout"], "paged") << "its cache is the usual one";
  EXPECT_EQ(result_of("eval kl -f - -m " + one.path() + " --against '-m " + one.path() + "'")["kl_max"], 0);
  expect_refused("eval kl -f - -m " + one.path() + " --against '-m " + smaller.path() + "'", 1, "258");
}

TEST(Eval, TheReportHasARowForEveryWay) {
  const TemporaryFile model, out(".md");
  write_random_model({.vocabulary = 259}, model.path(), true);
  const std::string report = "eval report -c 40 -f - -m " + model.path();
  const std::string story = kStory.substr(0, kSanitized ? 100 : kStory.size());  // a token a byte
  const Ended printed = run_program(report, story);
  ASSERT_EQ(printed.status, 0) << printed.err;
  EXPECT_THAT(printed.out, HasSubstr("| contiguous | f32 | f32 |"));
  EXPECT_THAT(printed.out, HasSubstr("| paged | q8_0 | q4_0 rotated |"));
  EXPECT_THAT(printed.out, HasSubstr("| mixed | q4_0 rotated, hot f16 | q4_0 rotated, hot f16 |"));
  const Ended written = run_program(report + " -o " + out.path(), story);
  EXPECT_EQ(written.out, "");
  std::ifstream file(out.path());
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), printed.out);

  std::istringstream lines(run_program(report + " --json", story).out);
  std::map<std::string, int> rows;
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    ++rows[row["layout"]];
    if (row["k_format"] == "f32") {
      EXPECT_EQ(row["kl_max"], 0);
    }
  }
  EXPECT_EQ(rows["contiguous"], rows["paged"]);
  EXPECT_GT(rows["mixed"], 0);
  expect_refused("eval report -m " + model.path(), 1, "-f");
}

TEST(Eval, TheReportOfTheModelsThatShipFindsNeedles) {
  const Ended printed = run_program("eval report -f - -c 40 --depths 128,100", kStory);
  ASSERT_EQ(printed.status, 0) << printed.err;
  EXPECT_THAT(printed.out, HasSubstr("tokens of stdin, in windows of 40"));
  EXPECT_THAT(printed.out, HasSubstr("| found of 50 in 128 | found of 50 in 100 |"));
  for (const char* row :
       {"\n| paged | f16 | f16 | 512 | 50 | 50 |\n", "\n| mixed | q8_0, hot f16 | q8_0, hot f16 | 512 "}) {
    EXPECT_THAT(printed.out, HasSubstr(row));
  }
  std::istringstream lines(run_program("eval report --json -f - -c 40 --depths 128,100", kStory).out);
  std::map<int, int> rows;
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    if (!row.contains("depth")) continue;
    ++rows[row["depth"]];
    EXPECT_EQ(row["accuracy"], 1) << line;
  }
  EXPECT_GT(rows[128], 0);
  EXPECT_EQ(rows[128], rows[100]);
}

TEST(Eval, WrongReferencesAreNamed) {
  for (const char* wrong : {"--cache heap", "--k-format q3_k", "--nonsense", "--json", "-c 100", "--help", "-m"}) {
    expect_refused(std::string("eval kl -f - --against '") + wrong + "'", 2, "--against");
  }
  expect_refused("eval kl -f - --against '-m /nowhere.gguf'", 1, "/nowhere.gguf");
}

}  // namespace
}  // namespace contexture
