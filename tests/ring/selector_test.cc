#include "backends/ring/selector.h"

#include <gtest/gtest.h>

namespace contexture {
namespace {

/// Llama 3 405B on nodes of eight: the paper's peaks.
RingShape paper(double nodes) {
  return {.ranks = nodes, .heads = 128, .kv_heads = 8, .element_bytes = 2, .flops = 800e12, .bandwidth = 50e9};
}

TEST(Selector, ThresholdsAreTheEquations) {
  EXPECT_DOUBLE_EQ(smaller_q_below(paper(4)), 0.125);
  const double kv[] = {2000, 4000, 8000, 16000}, q[] = {16000, 32000, 64000, 128000};
  for (int i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(hidden_kv_from(paper(2 << i)), kv[i]);
    EXPECT_DOUBLE_EQ(hidden_q_from(paper(2 << i)), q[i]);
  }
  RingShape slow = paper(4);
  slow.bandwidth /= 4;
  EXPECT_DOUBLE_EQ(hidden_kv_from(slow), 16000);
}

/// Table 4: new tokens of 128,000 and what was faster.
struct Row {
  double tokens;
  RingPass winner;
};
constexpr Row kTable4[] = {{1280, RingPass::q},    {3200, RingPass::q},   {4160, RingPass::q},   {6400, RingPass::q},
                           {12800, RingPass::kv},  {25600, RingPass::kv}, {38400, RingPass::kv}, {51200, RingPass::kv},
                           {64000, RingPass::kv},  {76800, RingPass::kv}, {89600, RingPass::kv}, {102400, RingPass::kv},
                           {115200, RingPass::kv}, {128000, RingPass::kv}};

TEST(Selector, WinnersOfTable4) {
  // With peaks instead of tuned numbers both miss 4,160 and 6,400, where the ways differ by 1.5 % and 0.3 %; Alg. 5
  // meets a tie at 3,200 (its right side is 2.5 %, as is the miss rate) and takes pass-KV there.
  int simple = 0, full = 0;
  for (const Row& row : kTable4) {
    simple += select_simple(paper(4), row.tokens, 128000 - row.tokens) == row.winner;
    full += select(paper(4), row.tokens, 128000 - row.tokens) == row.winner;
  }
  EXPECT_EQ(simple, 12);
  EXPECT_EQ(full, 11);
}

TEST(Selector, DecodePassesQ) {
  EXPECT_EQ(select(paper(4), 1, 128000), RingPass::q);
  EXPECT_EQ(select(paper(4), 128000, 0), RingPass::kv);
}

TEST(Selector, Names) {
  EXPECT_EQ(ring_mode_from_name("pass-q")->always, RingPass::q);
  EXPECT_EQ(ring_mode_from_name("pass-kv")->always, RingPass::kv);
  EXPECT_FALSE(ring_mode_from_name("auto")->always);
  EXPECT_FALSE(ring_mode_from_name("pass-o"));
}

}  // namespace
}  // namespace contexture
