#include "verify/layouts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "cache/layout.h"
#include "support/random_model.h"
#include "support/sanitized.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

using testing::HasSubstr;

constexpr size_t kVocabulary = 80;

/// A random model's file, and what a check of it says.
class LayoutsTest : public testing::Test {
 protected:
  explicit LayoutsTest(RandomModel model = {.ffn_dim = 32, .vocabulary = kVocabulary}) {
    write_random_model(model, temporary_.path());
    file_ = open_model(temporary_.path());
    checks_.prompt = made_prompt(kSanitized ? 200 : 300, kVocabulary);
    checks_.layouts = cache_layouts();
    checks_.k_formats.assign(kv_formats().begin(), kv_formats().end());
    checks_.v_formats = checks_.k_formats;
  }

  bool check() {
    results_.clear();
    return check_layouts(file_, checks_,
                         {.on_run = {}, .on_result = [&](const LayoutResult& r) { results_.push_back(r); }});
  }
  std::string failures() const {
    std::string all;
    for (const LayoutResult& r : results_) {
      for (const std::string& failure : r.failures) all += fmt::format("{}: {}\n", r.cache.layout, failure);
    }
    return all;
  }

  TemporaryFile temporary_;
  ModelFile file_;
  LayoutChecks checks_;
  std::vector<LayoutResult> results_;
};

TEST_F(LayoutsTest, AllHold) {
  if (kSanitized) checks_.k_formats = {Format::q4_0};
  EXPECT_TRUE(check()) << failures();
  std::set<std::tuple<std::string_view, Format, Format>> lines;
  std::set<std::tuple<Format, bool>> k_rotated, v_rotated;
  size_t attentions = 0;
  for (const LayoutResult& r : results_) {
    const CacheShape& shape = r.cache.shape;
    lines.insert({r.cache.layout, shape.k_format, shape.v_format});
    k_rotated.insert({shape.k_format, rotation_of(r.cache).k});
    v_rotated.insert({shape.v_format, rotation_of(r.cache).v});
    EXPECT_GT(r.ways, 0u);
    EXPECT_EQ(r.same, r.ways);
    EXPECT_LE(r.oracle.rounding_share, 1);
    EXPECT_LE(r.oracle.format_share, 1);
    if (shape.k_format == Format::f32 && shape.v_format == Format::f32 && !layout_of(r.cache).has_own_rows) {
      EXPECT_EQ(r.kl, 0);
      EXPECT_EQ(r.oracle.format_share, 0) << "f32 costs nothing";
    } else if (shape.v_format == Format::q4_0) {
      EXPECT_GT(r.kl, 0);
      EXPECT_GT(r.oracle.format_share, 0.1) << "a bound that is never approached says little";
    }
    attentions += r.oracle.attentions;
  }
  const size_t formats = kv_formats().size();
  EXPECT_EQ(lines.size(), (kSanitized ? 1 : formats) * formats * cache_layouts().size());
  EXPECT_GE(attentions, lines.size() * 2 * 32) << "in both layers the first block and the last";
  if (kSanitized) return;
  EXPECT_EQ(k_rotated.size(), 2 * formats) << "every format of K is met rotated and not";
  EXPECT_EQ(v_rotated.size(), 2 * formats) << "and of V";
}

TEST_F(LayoutsTest, EveryWayOfOnePairHolds) {
  checks_.prompt.resize(200);
  checks_.k_formats = {Format::q8_0};
  checks_.v_formats = {Format::f16};
  checks_.layouts = {"mixed"};
  checks_.all = true;
  if (kSanitized) checks_.threads = {2}, checks_.rotate = true;
  EXPECT_TRUE(check()) << failures();
  std::set<std::pair<bool, bool>> rotations;
  for (const LayoutResult& r : results_) {
    EXPECT_EQ(r.ways, 5u * 4 * checks_.threads.size() * 2) << "starts, chunks, threads, alone and not";
    EXPECT_EQ(r.oracle.attentions, 2 * 200u);
    EXPECT_TRUE(rotations.insert({rotation_of(r.cache).k, rotation_of(r.cache).v}).second);
  }
  EXPECT_EQ(rotations.size(), kSanitized ? 1u : 3u) << "K alone, which is cold in q4_0; both; neither";
}

TEST_F(LayoutsTest, WhatIsAskedForIsWhatRuns) {
  checks_.k_formats = {Format::f16};
  checks_.v_formats = {Format::q8_0, Format::q4_0};
  checks_.threads = {1};
  checks_.options = {{"page_tokens", {16}},
                     {"hot_tokens", {30}},
                     {"sink_tokens", {130}},
                     {"cold_k_format", {static_cast<int64_t>(Format::q8_0)}},
                     {"cold_v_format", {static_cast<int64_t>(Format::bf16)}}};
  checks_.rotate = false;
  EXPECT_THROW((void)check(), Error) << "300 tokens are too few for a cold block behind 130 sinks and 30 hot ones";
  checks_.prompt = made_prompt(349, kVocabulary);
  EXPECT_TRUE(check()) << failures();
  ASSERT_EQ(results_.size(), 2 * cache_layouts().size());
  for (const LayoutResult& r : results_) {
    EXPECT_EQ(rotation_of(r.cache), Rotation{});
    if (r.cache.layout != "mixed") continue;
    EXPECT_EQ(row_options(r.cache), "hot_tokens=30 sink_tokens=130 cold_k_format=q8_0 cold_v_format=bf16");
  }
}

TEST_F(LayoutsTest, ALayoutThatWasAddedIsTakenUp) {
  checks_.k_formats = checks_.v_formats = {Format::f16, Format::fp8_e4m3};
  if (kSanitized) checks_.k_formats.resize(1), std::erase(checks_.layouts, "mixed");
  EXPECT_TRUE(check()) << failures();
  const auto striped = std::ranges::count(results_, "striped", [](const LayoutResult& r) { return r.cache.layout; });
  EXPECT_GE(striped, std::ssize(checks_.k_formats) * 2);
  for (const LayoutResult& r : results_) {
    EXPECT_EQ(r.shares_reference, r.cache.layout == "paged" || r.cache.layout == "striped");
  }
}

/// A plant, and what the report of it must say.
struct Plant {
  std::string_view fault, says;
};

class PlantTest : public LayoutsTest, public testing::WithParamInterface<Plant> {};

TEST_P(PlantTest, IsFound) {
  checks_.fault = fault_from_name(GetParam().fault);
  ASSERT_NE(checks_.fault, nullptr);
  EXPECT_FALSE(check());
  EXPECT_THAT(failures(), HasSubstr(GetParam().says));
  ASSERT_FALSE(results_.empty());
  for (size_t i = 0; i + 1 < results_.size(); ++i) EXPECT_TRUE(results_[i].ok()) << "the first failure ends it";
}

INSTANTIATE_TEST_SUITE_P(All, PlantTest,
                         testing::Values(Plant{"k-by-v-stride", "K of the token at 1 is read as"},
                                         Plant{"heads-and-tokens", "of the token at 1 is read as"},
                                         Plant{"output-transposed", "of what float32's rounding explains"},
                                         Plant{"cold-ignored", "not every token is seen once"},
                                         Plant{"token-hidden", "not every token is seen once"},
                                         Plant{"future-seen", "stands at position -1"},
                                         Plant{"fixed-maximum", "not every token is seen once"},
                                         Plant{"one-tile-softmax", "of what float32's rounding explains"},
                                         Plant{"whole-pages", "logits differ"},
                                         Plant{"position", "of the token at 1 is read as"},
                                         Plant{"hash", "paged: a prefix hit"}, Plant{"fork", "fork"},
                                         Plant{"chunk-boundary", "mixed: "}, Plant{"coarse", "keeps it within"}),
                         [](const auto& info) {
                           std::string name(info.param.fault);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Faults, EachIsPlantedInOnePlaceAndTested) {
  std::set<std::string_view> names;
  for (const Fault& fault : all_faults()) {
    EXPECT_TRUE(names.insert(fault.name).second) << fault.name;
    EXPECT_NE(fault.make_cache == nullptr, fault.change_output == nullptr) << fault.name;
    EXPECT_EQ(fault_from_name(fault.name), &fault);
  }
  EXPECT_EQ(names.size(), 14u) << "a new one needs a line in PlantTest";
  EXPECT_EQ(fault_from_name("none"), nullptr);
}

TEST_F(LayoutsTest, CancelledItSaysNothing) {
  const std::atomic<bool> cancelled = true;
  checks_.cancelled = &cancelled;
  EXPECT_FALSE(check());
  EXPECT_TRUE(results_.empty());
}

TEST_F(LayoutsTest, TheShortestPrompt) {
  checks_.k_formats = checks_.v_formats = {Format::f16};
  constexpr size_t shortest_mixed = 1 + 63 + 128;  // a block of tokens becomes cold, and 64 queries read it so
  checks_.prompt.resize(shortest_mixed - 1);
  EXPECT_THROW((void)check(), Error) << "nothing would be cold";
  checks_.prompt = made_prompt(shortest_mixed, kVocabulary);
  EXPECT_TRUE(check()) << failures();
  checks_.layouts = {"contiguous", "paged"};
  checks_.prompt.resize(kShortestPrompt);
  EXPECT_TRUE(check()) << failures();
  checks_.prompt.resize(kShortestPrompt - 1);
  EXPECT_THROW((void)check(), Error);
}

/// Windows and soft-caps: the oracle knows them.
class WindowedLayoutsTest : public LayoutsTest {
 protected:
  WindowedLayoutsTest()
      : LayoutsTest({.family = "gemma2",
                     .heads = 6,
                     .kv_heads = 3,
                     .head_dim = 40,
                     .vocabulary = kVocabulary,
                     .window = 150,
                     .score_gain = 2,
                     .score_cap = 5}) {}
};

TEST_F(WindowedLayoutsTest, AllHold) {
  checks_.k_formats = {Format::f32, Format::q8_0};
  checks_.v_formats = {Format::f16, Format::q4_0};
  if (kSanitized) {
    checks_.k_formats = {Format::q8_0};
    checks_.v_formats = {Format::q4_0};
    checks_.layouts = {"paged", "mixed"};
  }
  EXPECT_TRUE(check()) << failures();
  EXPECT_EQ(results_.size(), checks_.k_formats.size() * checks_.v_formats.size() * checks_.layouts.size());
}

}  // namespace
}  // namespace contexture
