#include "kernels/attention.h"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/attention_state.h"
#include "support/random.h"
#include "support/sanitized.h"
#include "tensor/fp8_e4m3.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// K and V of a sequence, cut into spans of any lengths, each in memory of its own that is poisoned around the tokens.
class Context {
 public:
  Context(std::mt19937& random, const AttentionShape& shape, Format k_format, Format v_format, size_t tokens)
      : shape_(shape), k_format_(k_format), v_format_(v_format) {
    k_ = random_floats(random, tokens * shape.kv_heads * shape.head_dim);
    v_ = random_floats(random, tokens * shape.kv_heads * shape.head_dim);
  }

  void cut(const std::vector<size_t>& lengths, int64_t stride = 1, int64_t first_position = 0) {
    spans.clear();
    memory_.clear();
    size_t token = 0;
    for (const size_t length : lengths) {
      spans.push_back({.k_format = k_format_, .v_format = v_format_, .count = length});
      TokenSpan& span = spans.back();
      span.first_position = first_position + static_cast<int64_t>(token) * stride;
      span.position_stride = stride;
      span.k = fill(k_, k_format_, token, length, span.k_token_stride, span.k_head_stride);
      span.v = fill(v_, v_format_, token, length, span.v_token_stride, span.v_head_stride);
      token += length;
    }
  }

  void change_formats(Format k_format, Format v_format) {
    k_format_ = k_format;
    v_format_ = v_format;
  }

  /// V of every token and channel; before cut().
  void set_v(float value) { v_.assign(v_.size(), value); }

  std::vector<TokenSpan> spans;

 private:
  /// (head, token, channel), with room for one token more in each head, all bytes 0xff (NaN in every format) before.
  const std::byte* fill(const std::vector<float>& from, Format format, size_t first, size_t count, size_t& token_stride,
                        size_t& head_stride) {
    token_stride = kv_row_bytes(format, shape_.head_dim);
    head_stride = token_stride * (count + 1);
    memory_.emplace_back(head_stride * shape_.kv_heads, std::byte{0xff});
    for (size_t head = 0; head < shape_.kv_heads; ++head) {
      for (size_t t = 0; t < count; ++t) {
        encode_kv_row(format, from.data() + ((first + t) * shape_.kv_heads + head) * shape_.head_dim,
                      memory_.back().data() + head * head_stride + t * token_stride, shape_.head_dim);
      }
    }
    return memory_.back().data();
  }

  AttentionShape shape_;
  Format k_format_, v_format_;
  std::vector<float> k_, v_;  // (tokens, kv_heads, head_dim)
  std::vector<std::vector<std::byte>> memory_;
};

AttentionShape shape_of(size_t heads, size_t kv_heads, size_t head_dim) {
  AttentionShape shape;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  shape.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  return shape;
}

std::vector<float> attended(const AttentionShape& shape, const std::vector<float>& q,
                            const std::vector<int64_t>& positions, CacheView view, int threads, size_t context = 0) {
  std::vector<float> out(q.size(), std::numeric_limits<float>::signaling_NaN());
  AttentionScratch scratch(shape, threads, context);
  ThreadPool pool(threads);
  const AttentionQueries queries{q.data(), out.data(), positions, view};
  attend({&queries, 1}, shape, scratch, pool);
  return out;
}

std::vector<int64_t> last_positions(size_t tokens, size_t queries) {
  std::vector<int64_t> positions(queries);
  std::iota(positions.begin(), positions.end(), static_cast<int64_t>(tokens - queries));
  return positions;
}

TEST(Attention, AgreesWithTheOracle) {
  std::mt19937 random = fresh_random();
  for (const auto& [heads, kv_heads] : {std::pair<size_t, size_t>{1, 1}, {4, 4}, {6, 2}, {8, 1}}) {
    for (const size_t dim : {8, 24, 64, 80, 128, 256}) {
      for (const size_t tokens : {1, 5, 127, 128, 129, 300}) {
        const AttentionShape shape = shape_of(heads, kv_heads, dim);
        const auto some_format = [&] { return kv_formats()[random() % kv_formats().size()]; };
        Context context(random, shape, some_format(), some_format(), tokens);
        context.cut({tokens});
        const size_t queries = std::min<size_t>(tokens, 1 + random() % 20);
        const std::vector<float> q = random_floats(random, queries * heads * dim);
        const std::vector<int64_t> positions = last_positions(tokens, queries);
        const std::vector<float> out = attended(shape, q, positions, context.spans, 2);
        std::vector<double> expected(heads * dim);
        for (size_t t = 0; t < queries; ++t) {
          attend_plain(q.data() + t * heads * dim, positions[t], context.spans, shape, expected.data());
          for (size_t i = 0; i < expected.size(); ++i) {
            // Scores of about N(0, 1) carry dim + 1 roundings, the weights two of exp, the sums one a token of a lane:
            // together some 2^-24 · (dim + tokens) of values of about 1.
            const double bound = 0x1p-24 * static_cast<double>(dim + tokens + 16) * 4;
            ASSERT_NEAR(out[t * heads * dim + i], expected[i], bound)
                << heads << "/" << kv_heads << " heads of " << dim << ", " << tokens << " tokens, query " << t;
          }
        }
      }
    }
  }
}

/// One token is all that its query sees: what comes out is its V, as it is stored.
TEST(Attention, ReadsEveryCodeOfFp8OnEveryTarget) {
  for (const size_t dim : {32, 40}) {  // straight from the rows, and through a tile of floats
    const AttentionShape shape = shape_of(1, 1, dim);
    for (int64_t left = hwy::SupportedTargets(); left != 0; left &= left - 1) {
      hwy::SetSupportedTargetsForTest(left & -left);
      for (size_t first = 0; first < 256; first += dim) {
        std::vector<std::byte> k(dim, std::byte{0}), v(dim);
        for (size_t i = 0; i < dim; ++i) v[i] = static_cast<std::byte>(first + i);
        const TokenSpan span{.k_format = Format::fp8_e4m3,
                             .v_format = Format::fp8_e4m3,
                             .k = k.data(),
                             .v = v.data(),
                             .k_token_stride = dim,
                             .k_head_stride = dim,
                             .v_token_stride = dim,
                             .v_head_stride = dim,
                             .count = 1};
        const std::vector<float> out = attended(shape, std::vector<float>(dim, 1.f), {0}, {&span, 1}, 1);
        for (size_t i = 0; i < dim; ++i) {
          const float stored = fp8_e4m3_to_f32(static_cast<uint8_t>(first + i));
          EXPECT_TRUE(out[i] == stored || (std::isnan(out[i]) && std::isnan(stored)))
              << (first + i) % 256 << " on " << hwy::TargetName(left & -left) << ": " << out[i];
        }
      }
      hwy::SetSupportedTargetsForTest(0);
    }
  }
}

/// A block table is looked at in any layer: spans of different strides between layers, as a cache of two memories has.
TEST(Attention, ReadsTheLayerOfTheView) {
  std::mt19937 random = fresh_random();
  constexpr size_t layers = 3, dim = 40, row = dim * sizeof(float);
  const AttentionShape shape = shape_of(2, 1, dim);
  const std::vector<float> first = random_floats(random, layers * 20 * dim),
                           last = random_floats(random, layers * 70 * dim);
  const auto span_of = [&](const std::vector<float>& rows, size_t stride, int64_t position, size_t count) {
    const std::byte* bytes = std::as_bytes(std::span(rows)).data();
    return TokenSpan{.k_format = Format::f32,
                     .v_format = Format::f32,
                     .k = bytes,
                     .v = bytes + row,
                     .k_token_stride = row,
                     .v_token_stride = row,
                     .k_layer_stride = stride * row,
                     .v_layer_stride = stride * row,
                     .count = count,
                     .first_position = position};
  };
  const std::vector<TokenSpan> table = {span_of(first, 20, 0, 19), span_of(last, 70, 19, 69)};
  const std::vector<float> q = random_floats(random, 9 * 2 * dim);
  const std::vector<int64_t> positions = last_positions(88, 9);
  for (size_t layer = 0; layer < layers; ++layer) {
    std::vector<TokenSpan> alone = table;  // the same addresses, written out
    for (TokenSpan& span : alone) {
      span.k += layer * span.k_layer_stride;
      span.v += layer * span.v_layer_stride;
    }
    const CacheView view(table, layer);
    EXPECT_EQ(attended(shape, q, positions, view, 2), attended(shape, q, positions, alone, 2)) << layer;
    std::vector<double> expected(2 * dim), made(2 * dim);
    attend_plain(q.data(), 87, alone, shape, expected.data());
    attend_plain(q.data(), 87, view, shape, made.data());
    EXPECT_EQ(made, expected);
    EXPECT_EQ(view[1].k, alone[1].k);
  }
}

TEST(Attention, WindowsAndSoftCapsAgreeWithTheOracle) {
  std::mt19937 random = fresh_random();
  for (const int64_t window : {1, 2, 31, 128, 129, 200, 1000}) {
    for (const float cap : {0.f, 0.7f, 50.f}) {
      AttentionShape shape = shape_of(4, 2, 40);
      shape.window = window;
      shape.softcap = cap;
      const size_t tokens = 1 + random() % 600, queries = std::min<size_t>(tokens, 1 + random() % 40);
      Context context(random, shape, Format::f32, Format::f16, tokens);
      context.cut({tokens / 3, tokens - tokens / 3});
      const std::vector<float> q = random_floats(random, queries * shape.heads * shape.head_dim, 3);
      const std::vector<int64_t> positions = last_positions(tokens, queries);
      const std::vector<float> out = attended(shape, q, positions, context.spans, 2);
      const size_t row = shape.heads * shape.head_dim;
      std::vector<double> expected(row);
      for (size_t t = 0; t < queries; ++t) {
        attend_plain(q.data() + t * row, positions[t], context.spans, shape, expected.data());
        for (size_t i = 0; i < row; ++i) {
          ASSERT_NEAR(out[t * row + i], expected[i], 5e-5) << window << ", " << cap << ", query at " << positions[t];
        }
        const std::vector<float> one(q.begin() + static_cast<ptrdiff_t>(t * row),
                                     q.begin() + static_cast<ptrdiff_t>((t + 1) * row));
        const std::vector<float> alone = attended(shape, one, {positions[t]}, context.spans, 1);
        ASSERT_TRUE(std::equal(alone.begin(), alone.end(), out.begin() + static_cast<ptrdiff_t>(t * row))) << t;
      }
    }
  }
}

TEST(Attention, NothingOutsideTheWindowIsFelt) {
  std::mt19937 random = fresh_random();
  AttentionShape shape = shape_of(2, 1, 16);
  shape.window = 70;
  Context context(random, shape, Format::f32, Format::f32, 300);
  const std::vector<float> q = random_floats(random, 2 * 16);
  context.cut({300});
  const std::vector<float> before = attended(shape, q, {299}, context.spans, 1);
  auto* k = reinterpret_cast<float*>(const_cast<std::byte*>(context.spans[0].k));
  auto* v = reinterpret_cast<float*>(const_cast<std::byte*>(context.spans[0].v));
  std::fill(k, k + 230 * 16, NAN);  // 299 sees 230 to 299
  std::fill(v, v + 230 * 16, NAN);
  EXPECT_EQ(before, attended(shape, q, {299}, context.spans, 1));
  v[230 * 16] = NAN;
  EXPECT_TRUE(std::isnan(attended(shape, q, {299}, context.spans, 1)[0]));
}

TEST(Attention, StridedWindowsBeginInTheRightTile) {
  std::mt19937 random = fresh_random();
  AttentionShape shape = shape_of(1, 1, 8);
  shape.window = 50;
  Context context(random, shape, Format::f32, Format::f32, 400);
  context.cut({100, 0, 300}, /*stride=*/3, /*first_position=*/2);
  const std::vector<float> q = random_floats(random, 8);
  for (const int64_t position : {0, 2, 49, 130, 383, 384, 385, 1000, 1199, 5000}) {
    const std::vector<float> out = attended(shape, q, {position}, context.spans, 1);
    std::vector<double> expected(8);
    attend_plain(q.data(), position, context.spans, shape, expected.data());
    for (size_t i = 0; i < 8; ++i) ASSERT_NEAR(out[i], expected[i], 1e-5) << position;
  }
}

/// Many queries together, which are read through tiles of floats, and each alone, which is read straight from its rows.
void expect_same_bits(std::mt19937& random, AttentionShape shape, Format k_format, Format v_format) {
  const size_t tokens = 333, queries = 37;
  Context context(random, shape, k_format, v_format, tokens);
  const std::vector<float> q = random_floats(random, queries * shape.heads * shape.head_dim);
  const std::vector<int64_t> positions = last_positions(tokens, queries);
  context.cut({tokens});
  const std::vector<float> whole = attended(shape, q, positions, context.spans, 1);

  for (const size_t page : {1, 7, 32, 128}) {
    std::vector<size_t> pages(tokens / page, page);
    if (tokens % page) pages.push_back(tokens % page);
    pages.insert(pages.begin() + 1, 0);  // an empty span is nothing
    context.cut(pages);
    EXPECT_EQ(whole, attended(shape, q, positions, context.spans, 3)) << "pages of " << page;
  }
  const size_t row = shape.heads * shape.head_dim;
  const auto alone = [&](size_t t) {
    const auto begin = static_cast<ptrdiff_t>(t * row), end = begin + static_cast<ptrdiff_t>(row);
    const std::vector<float> one(q.begin() + begin, q.begin() + end);
    const std::vector<float> out = attended(shape, one, {positions[t]}, context.spans, 2);
    return std::equal(out.begin(), out.end(), whole.begin() + begin);
  };
  for (size_t t = 0; t < queries; ++t) EXPECT_TRUE(alone(t)) << t;
  for (int64_t left = hwy::SupportedTargets(); left != 0; left &= left - 1) {
    hwy::SetSupportedTargetsForTest(left & -left);
    EXPECT_EQ(whole, attended(shape, q, positions, context.spans, 1)) << hwy::TargetName(left & -left);
    EXPECT_TRUE(alone(random() % queries)) << hwy::TargetName(left & -left);
    hwy::SetSupportedTargetsForTest(0);
  }
}

TEST(Attention, GivesTheSameBitsForAnySpansThreadsCompanyAndTargets) {
  std::mt19937 random = fresh_random();
  expect_same_bits(random, shape_of(6, 2, 40), Format::f16, Format::bf16);
  for (const Format k_format : kv_formats()) {
    for (const auto& [heads, kv_heads] : {std::pair<size_t, size_t>{1, 1}, {4, 2}, {3, 1}, {4, 1}, {7, 1}}) {
      if (kSanitized && random() % 4 != 0) continue;
      const size_t dims[] = {32, 64, 96, 128, 256};
      AttentionShape shape = shape_of(heads, kv_heads, dims[random() % 5]);
      if (random() % 2) shape.window = 1 + static_cast<int64_t>(random() % 400);
      if (random() % 3 == 0) shape.softcap = 5;
      const Format v_format = kv_formats()[random() % kv_formats().size()];
      SCOPED_TRACE(testing::Message() << heads << "/" << kv_heads << " heads of " << shape.head_dim << ", K "
                                      << name(k_format) << ", V " << name(v_format));
      expect_same_bits(random, shape, k_format, v_format);
    }
  }
}

TEST(Attention, OneSequenceCutOverThreadsGivesTheSameBits) {
  std::mt19937 random = fresh_random();
  for (const size_t tokens : {1, 511, 512, 513, 1500, 2700}) {
    AttentionShape shape = shape_of(4, 2, 24);
    shape.window = random() % 2 ? static_cast<int64_t>(1 + random() % 1500) : 0;
    Context context(random, shape, Format::q8_0, Format::f16, tokens);
    context.cut({tokens / 2, tokens - tokens / 2});
    const std::vector<float> q = random_floats(random, shape.heads * shape.head_dim);
    const std::vector<int64_t> last = last_positions(tokens, 1);
    const std::vector<float> alone = attended(shape, q, last, context.spans, 1);
    for (const int threads : {2, 3, 16}) {
      EXPECT_EQ(alone, attended(shape, q, last, context.spans, threads, tokens)) << tokens << " tokens, " << threads;
      EXPECT_EQ(alone, attended(shape, q, last, context.spans, threads, tokens / 3)) << "more than was planned for";
    }
  }
}

// A mixed cache's view: tokens that are there twice, for earlier and for later queries.
TEST(Attention, EachQuerySeesTheSpansMeantForIt) {
  std::mt19937 random = fresh_random();
  for (const size_t dim : {40, 64}) {
    const AttentionShape shape = shape_of(4, 2, dim);
    const size_t tokens = 300, queries = 50;
    Context exact(random, shape, Format::f32, Format::f32, tokens);
    exact.cut({100, 100, 100});
    Context coarse = exact;
    coarse.change_formats(Format::q4_0, Format::q8_0);
    coarse.cut({100, 100, 100});
    std::vector<TokenSpan> view{coarse.spans[0], coarse.spans[1], exact.spans[1], exact.spans[2]};
    view[1].queries_from = view[2].queries_until = 271;
    const std::vector<float> q = random_floats(random, queries * shape.heads * shape.head_dim);
    const std::vector<int64_t> positions = last_positions(tokens, queries);
    const std::vector<float> out = attended(shape, q, positions, view, 2);
    const size_t row = shape.heads * shape.head_dim;
    for (size_t t = 0; t < queries; ++t) {
      const bool early = positions[t] < 271;
      const std::vector<TokenSpan> own{coarse.spans[0], (early ? exact : coarse).spans[1], exact.spans[2]};
      const auto begin = static_cast<ptrdiff_t>(t * row), end = begin + static_cast<ptrdiff_t>(row);
      const std::vector<float> one(q.begin() + begin, q.begin() + end);
      const std::vector<float> alone = attended(shape, one, {positions[t]}, own, 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), out.begin() + begin)) << "query at " << positions[t];
      std::vector<double> expected(row), of_view(row);
      attend_plain(one.data(), positions[t], own, shape, expected.data());
      attend_plain(one.data(), positions[t], view, shape, of_view.data());
      EXPECT_EQ(expected, of_view);
    }
  }
}

TEST(Attention, StridedPositionsDecideWhatIsSeen) {
  std::mt19937 random(5);
  const AttentionShape shape = shape_of(2, 1, 16);
  Context context(random, shape, Format::f32, Format::f32, 200);
  context.cut({200}, /*stride=*/3, /*first_position=*/1);  // a rank that holds every third token
  const std::vector<float> q = random_floats(random, shape.heads * shape.head_dim);
  for (const int64_t position : {0, 1, 3, 4, 130, 598, 700}) {
    const std::vector<float> out = attended(shape, q, {position}, context.spans, 1);
    std::vector<double> expected(out.size());
    attend_plain(q.data(), position, context.spans, shape, expected.data());
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 1e-5) << "position " << position;
    if (position == 0) {
      for (const float v : out) EXPECT_EQ(v, 0) << "a query that sees nothing gets zeros";
    }
  }
}

// The parts of a context, here every second tile of a window's, merged: rows of a part that see none of it are the
// empty state, and merge as nothing.
TEST(Attention, StatesOfPartsMergeIntoTheWhole) {
  std::mt19937 random = fresh_random();
  AttentionShape shape = shape_of(4, 2, 24);
  shape.window = 100;
  const size_t tokens = 500, queries = 300, dim = shape.head_dim, rows = queries * shape.heads;
  Context context(random, shape, Format::f32, Format::q8_0, tokens);
  context.cut({128, 128, 128, 116});
  const std::vector<float> q = random_floats(random, rows * dim);
  const std::vector<int64_t> positions = last_positions(tokens, queries);
  const std::vector<float> whole = attended(shape, q, positions, context.spans, 2);
  std::vector<AttentionState> merged(rows);
  std::vector<float> values(rows * dim, 0.f);
  size_t empty = 0;
  AttentionScratch scratch(shape, 2);
  ThreadPool pool(2);
  for (const size_t first : {0, 1}) {
    const std::vector<TokenSpan> part{context.spans[first], context.spans[first + 2]};
    std::vector<AttentionState> states(rows, {NAN, NAN});
    std::vector<float> out(rows * dim, std::numeric_limits<float>::signaling_NaN());
    const AttentionQueries of_part{q.data(), out.data(), positions, part, states.data()};
    attend({&of_part, 1}, shape, scratch, pool);
    for (size_t row = 0; row < rows; ++row) {
      const int64_t last = positions[row / shape.heads], oldest = last - shape.window + 1;
      const auto sees = [&](const TokenSpan& span) {
        return span.first_position <= last && span.position(span.count - 1) >= oldest;
      };
      if (!sees(part[0]) && !sees(part[1])) {
        ++empty;
        ASSERT_EQ(states[row].maximum, -std::numeric_limits<float>::infinity());
        ASSERT_EQ(states[row].sum, 0);
        for (size_t d = 0; d < dim; ++d) ASSERT_EQ(out[row * dim + d], 0);
      }
      const MergeFactors factors = merge(merged[row], states[row]);
      for (size_t d = 0; d < dim; ++d) {
        values[row * dim + d] = values[row * dim + d] * factors.a + out[row * dim + d] * factors.b;
      }
    }
  }
  EXPECT_GT(empty, 0u);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t d = 0; d < dim; ++d) {
      // Both are off by float32's rounding over at most 100 tokens of values of about 1, as in AgreesWithTheOracle.
      const double bound = 2 * 0x1p-24 * static_cast<double>(dim + 100 + 16) * 4;
      ASSERT_NEAR(values[row * dim + d] / merged[row].sum, whole[row * dim + d], bound) << row;
    }
  }
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const AttentionShape shape = shape_of(1, 1, 8);
  std::mt19937 random(6);
  Context context(random, shape, Format::f32, Format::f32, 300);
  context.cut({300});
  const std::vector<float> q = random_floats(random, 8, 1e4f);
  const std::vector<float> out = attended(shape, q, {299}, context.spans, 1);
  std::vector<double> expected(8);
  attend_plain(q.data(), 299, context.spans, shape, expected.data());
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(out[i], expected[i], 1e-2);
}

TEST(Attention, WeightsSumToOneAtAnyLength) {
  std::mt19937 random = fresh_random();
  const AttentionShape shape = shape_of(4, 2, 16);
  for (const size_t tokens : {128, 512, 2048, 4096, 8192}) {
    Context context(random, shape, Format::f16, Format::f16, tokens);
    context.set_v(1);
    const std::vector<float> q = random_floats(random, shape.heads * shape.head_dim, 3);
    for (const size_t page : {size_t{32}, tokens}) {
      context.cut(std::vector<size_t>(tokens / page, page));
      for (const float sum : attended(shape, q, {static_cast<int64_t>(tokens) - 1}, context.spans, 2, tokens)) {
        ASSERT_NEAR(sum, 1, 1e-5) << tokens << " in pages of " << page;
      }
    }
  }
}

// Two tokens, scores 0 and x: the second's share is e^x / (1 + e^x), and it alone has a value.
TEST(Attention, WeightsAreExponentialsToTheLastPlace) {
  std::mt19937 random = fresh_random();
  AttentionShape shape = shape_of(1, 1, 32);
  shape.scale = 1;
  std::uniform_real_distribution<float> scores(-87.3f, 0), tiny(-1e-3f, 0);
  for (int i = 0; i < 4000; ++i) {
    const float x = i % 2 ? scores(random) : tiny(random);
    std::vector<float> k(64, 0.f), v(64, 0.f), q(32, 0.f);
    q[0] = v[32] = 1;
    k[32] = x;
    const auto* k_bytes = reinterpret_cast<const std::byte*>(k.data());
    const auto* v_bytes = reinterpret_cast<const std::byte*>(v.data());
    const TokenSpan span{.k_format = Format::f32,
                         .v_format = Format::f32,
                         .k = k_bytes,
                         .v = v_bytes,
                         .k_token_stride = 128,
                         .k_head_stride = 256,
                         .v_token_stride = 128,
                         .v_head_stride = 256,
                         .count = 2};
    const double weight = std::exp(static_cast<double>(x)), expected = weight / (1 + weight);
    // One unit in the last place of the weight (2 · 2^-24), half a one each of the sum, its inverse and the product.
    EXPECT_NEAR(attended(shape, q, {1}, {&span, 1}, 1)[0] / expected, 1, 5 * 0x1p-24) << x;
  }
}

TEST(Attention, NotANumberStaysNotANumber) {
  std::mt19937 random = fresh_random();
  const AttentionShape shape = shape_of(2, 1, 16);
  const size_t tokens = 300;
  for (const char where : {'q', 'k', 'v', 'K'}) {
    Context context(random, shape, Format::f32, Format::f32, tokens);
    context.cut({tokens});
    std::vector<float> q = random_floats(random, shape.heads * shape.head_dim);
    std::vector<float> bad(shape.head_dim, NAN);
    auto* k = reinterpret_cast<float*>(const_cast<std::byte*>(context.spans[0].k));
    auto* v = reinterpret_cast<float*>(const_cast<std::byte*>(context.spans[0].v));
    if (where == 'q') q[5] = NAN;
    if (where == 'k') k[140 * 16 + 3] = NAN;
    if (where == 'v') v[7 * 16 + 3] = NAN;
    if (where == 'K') std::fill(k, k + tokens * 16, NAN);
    const std::vector<float> out = attended(shape, q, {299}, context.spans, 1);
    EXPECT_TRUE(std::isnan(out[3])) << where;
  }
}

TEST(AttentionState, EmptySetsMergeAsNothing) {
  AttentionState nothing;
  EXPECT_EQ(merge(nothing, AttentionState()).a, 0);
  EXPECT_EQ(nothing.sum, 0);
  EXPECT_EQ(nothing.maximum, -std::numeric_limits<float>::infinity());

  AttentionState some{2.5f, 3.f};
  const MergeFactors kept = merge(some, nothing);
  EXPECT_EQ(kept.a, 1);
  EXPECT_EQ(kept.b, 0);
  EXPECT_EQ(some.sum, 3);
  const MergeFactors taken = merge(nothing, some);
  EXPECT_EQ(taken.a, 0);
  EXPECT_EQ(taken.b, 1);
  EXPECT_EQ(nothing.maximum, 2.5f);
}

TEST(AttentionState, MergesIntoTheUnion) {
  // Scores {1, 2} and {4}: the union's sum over its maximum 4 is e^-3 + e^-2 + 1.
  AttentionState a{2, std::exp(-1.f) + 1}, b{4, 1};
  merge(a, b);
  EXPECT_EQ(a.maximum, 4);
  EXPECT_NEAR(a.sum, std::exp(-3.0) + std::exp(-2.0) + 1, 1e-6);
}

}  // namespace
}  // namespace contexture
