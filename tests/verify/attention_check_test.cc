#include "verify/attention_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "support/sanitized.h"
#include "verify/random_context.h"

namespace contexture {
namespace {

class AttentionCheckTest : public testing::Test {
 protected:
  Format some_format() { return kv_formats()[random() % kv_formats().size()]; }
  std::mt19937 random = fresh_random();
  ThreadPool pool{2};
};

TEST_F(AttentionCheckTest, PassesWhatAttentionReallyComputes) {
  double largest_share = 0;
  for (const auto& [heads, kv_heads] : {std::pair<size_t, size_t>{1, 1}, {4, 4}, {6, 2}, {8, 1}}) {
    for (const size_t dim : {8, 24, 64, 128, 256}) {
      for (const size_t tokens : {1, 5, 127, 129, 1100}) {
        AttentionShape shape = shape_of(heads, kv_heads, dim);
        if (random() % 3 == 0) shape.window = static_cast<int64_t>(1 + random() % (tokens + 50));
        if (random() % 3 == 0) shape.softcap = random() % 2 ? 0.7f : 30.f;
        RandomContext context(
            random, shape,
            {{tokens / 3, some_format(), some_format()}, {tokens - tokens / 3, some_format(), some_format()}});
        const float gain = std::array{0.f, 1.f, 30.f, 1e4f}[random() % 4];
        AttendedQueries queries(random, shape, tokens, std::min<size_t>(tokens, 1 + random() % sized(20)), gain);
        queries.attend_to(context.spans, shape, pool);
        const AttentionCheck check = check_attention(queries.over(context.spans), shape, pool);
        EXPECT_LE(check.bound_share, 1) << heads << "/" << kv_heads << " heads of " << dim << ", " << tokens
                                        << " tokens, window " << shape.window << ", soft-cap " << shape.softcap
                                        << ", gain " << gain << ": error " << check.max_abs_error << ", of its bound "
                                        << check.bound_share;
        EXPECT_TRUE(check.each_token_once);
        EXPECT_TRUE(check.decided || gain > 1000) << dim << " channels, " << tokens << " tokens, gain " << gain;
        EXPECT_EQ(check.tokens, shape.window > 0 ? std::min<size_t>(tokens, shape.window) : tokens);
        EXPECT_NEAR(softmax_weight_sum(queries.over(context.spans), shape, pool), 1, 1e-5);
        largest_share = std::max(largest_share, check.bound_share);
      }
    }
  }
  EXPECT_GT(largest_share, 0.01) << "a bound that nothing comes near finds nothing";
}

// Scores so large that float32 cannot tell which token's is the largest: whatever the output is, nothing is proven.
TEST_F(AttentionCheckTest, ScoresThatAreTooLargeDecideNothing) {
  const AttentionShape shape = shape_of(2, 1, 64);
  RandomContext context(random, shape, {{200, Format::f16, Format::f16}});
  AttendedQueries queries(random, shape, 200, 3, /*gain=*/1e12f);
  queries.attend_to(context.spans, shape, pool);
  const AttentionCheck check = check_attention(queries.over(context.spans), shape, pool);
  EXPECT_FALSE(check.decided);
  EXPECT_FALSE(check.ok());
}

/// What goes wrong in attention, in the way that it goes wrong: the output is recomputed with the mistake.
TEST_F(AttentionCheckTest, FindsWhatIsPlanted) {
  struct Plant {
    const char* name;
    std::function<void(std::vector<TokenSpan>&, AttentionShape&, AttendedQueries&)> make;
  };
  const Plant plants[] = {
      {"K by V's stride", [](auto& view, auto&, auto&) { view[0].k_token_stride = view[0].v_token_stride; }},
      {"V by K's stride", [](auto& view, auto&, auto&) { view[1].v_token_stride = view[1].k_token_stride; }},
      {"heads and tokens swapped",  // read as (token, head), and written as (head, token)
       [](auto& view, auto&, auto&) {
         view[2].k_head_stride = view[2].k_token_stride;
         view[2].k_token_stride *= 2;
       }},
      {"the first span ignored", [](auto& view, auto&, auto&) { view.erase(view.begin()); }},
      {"the mask one too far",
       [](auto&, auto&, auto& q) {
         for (int64_t& p : q.positions) --p;
       }},
      {"a mask where there is none", [](auto&, auto& shape, auto&) { shape.window = 200; }},
      {"no soft-cap", [](auto&, auto& shape, auto&) { shape.softcap = 0; }},
      {"another scale", [](auto&, auto& shape, auto&) { shape.scale *= 1.01f; }},
  };
  for (const Plant& plant : plants) {
    AttentionShape shape = shape_of(6, 2, 32);
    shape.softcap = 5;
    RandomContext context(
        random, shape,
        {{100, Format::f16, Format::q8_0}, {130, Format::f16, Format::f32}, {70, Format::f32, Format::f32}});
    AttendedQueries queries(random, shape, 300, 5);
    std::vector<TokenSpan> view = context.spans;
    AttentionShape wrong = shape;
    AttendedQueries asked = queries;
    plant.make(view, wrong, asked);
    asked.attend_to(view, wrong, pool);
    queries.out = asked.out;
    const AttentionCheck check = check_attention(queries.over(context.spans), shape, pool);
    EXPECT_FALSE(check.ok()) << plant.name;
    EXPECT_TRUE(check.each_token_once) << "the view itself is sound";
    EXPECT_GT(check.relative_error(), 1e-4) << plant.name;
  }
}

TEST_F(AttentionCheckTest, FindsOneWrongNumber) {
  const AttentionShape shape = shape_of(4, 2, 64);
  RandomContext context(random, shape, {{400, Format::f16, Format::f16}});
  AttendedQueries queries(random, shape, 400, 3);
  queries.attend_to(context.spans, shape, pool);
  const std::vector<float> right = queries.out;
  for (const float wrong : {1e-3f, -1e-3f, NAN, INFINITY}) {
    queries.out = right;
    queries.out[random() % right.size()] += wrong;
    EXPECT_FALSE(check_attention(queries.over(context.spans), shape, pool).ok()) << wrong;
  }
}

TEST_F(AttentionCheckTest, FindsAViewThatLacksOrRepeatsTokens) {
  const AttentionShape shape = shape_of(2, 1, 16);
  const std::vector<RandomContext::Run> runs{{40, Format::f16, Format::f16}, {10, Format::f16, Format::f16}};
  RandomContext context(random, shape, runs);
  AttendedQueries queries(random, shape, 50, 4);
  const auto checked = [&](const std::vector<TokenSpan>& view) {
    queries.attend_to(view, shape, pool);
    return check_attention(queries.over(view), shape, pool);
  };
  EXPECT_TRUE(checked(context.spans).ok());
  std::vector<TokenSpan> view = context.spans;
  view.erase(view.begin());  // as a cache that forgets its cold part: the output is right for what is there
  EXPECT_LE(checked(view).bound_share, 1);
  EXPECT_FALSE(checked(view).ok());
  view = context.spans;
  view[0].queries_until = 49;  // the last query alone misses it
  EXPECT_FALSE(checked(view).ok());
  view = context.spans;
  view[1].count = 9;
  EXPECT_FALSE(checked(view).ok());
  view = context.spans;
  view.insert(view.begin(), view[0]);
  EXPECT_FALSE(check_attention(queries.over(view), shape, pool).ok());
}

TEST_F(AttentionCheckTest, NumbersThatAreNoneAreNotOk) {
  const AttentionShape shape = shape_of(2, 1, 16);
  RandomContext context(random, shape, {{50, Format::f32, Format::f32}});
  AttendedQueries queries(random, shape, 50, 2);
  queries.q[3] = NAN;
  queries.attend_to(context.spans, shape, pool);
  EXPECT_FALSE(check_attention(queries.over(context.spans), shape, pool).ok());
}

TEST_F(AttentionCheckTest, WeightsThatAreNotThereShowInTheirSum) {
  const AttentionShape shape = shape_of(2, 1, 16);
  RandomContext context(random, shape, {{50, Format::f16, Format::f16}});
  AttendedQueries queries(random, shape, 50, 2);
  EXPECT_NEAR(softmax_weight_sum(queries.over(context.spans), shape, pool), 1, 1e-6);
  EXPECT_EQ(softmax_weight_sum(queries.over({}), shape, pool), 0);
  queries.q[3] = NAN;
  EXPECT_TRUE(std::isnan(softmax_weight_sum(queries.over(context.spans), shape, pool)));
}

}  // namespace
}  // namespace contexture
