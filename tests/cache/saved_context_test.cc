#include "cache/saved_context.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "cache/layout.h"
#include "kernels/hadamard.h"
#include "support/random.h"
#include "support/sanitized.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

constexpr size_t kSavedLayers = 2, kHeads = 3, kSavedDim = 16, kSavedRow = kHeads * kSavedDim;
constexpr size_t kContext = 400;

struct Kind {
  std::string_view layout;
  Format k, v, cold_k = Format::q4_0, cold_v = Format::q8_0;
  std::optional<bool> rotate = {};
  size_t hot = 20, sinks = 3;
};

CachePlan plan_of(const Kind& kind, size_t sequences = 2, size_t context = kContext) {
  return {.layout = std::string(kind.layout),
          .shape = {.layers = kSavedLayers,
                    .kv_heads = kHeads,
                    .head_dim = kSavedDim,
                    .k_format = kind.k,
                    .v_format = kind.v},
          .sequences = sequences,
          .context = context,
          .step_tokens = 16,
          .options = own_options(kind.layout, {{"page_tokens", 8},
                                               {"hot_tokens", kind.hot},
                                               {"sink_tokens", kind.sinks},
                                               {"cold_k_format", kind.cold_k},
                                               {"cold_v_format", kind.cold_v}}),
          .rotate = kind.rotate,
          .resumable = true};
}

/// Appends tokens of random K and V, in steps.
void append_random(Cache& cache, SequenceId sequence, size_t tokens, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> k(kSavedRow), v(kSavedRow);
  for (size_t n; tokens > 0; tokens -= n) {
    n = std::min<size_t>(tokens, 1 + random() % 16);
    const size_t first = cache.length(sequence);
    ASSERT_TRUE(cache.append(sequence, n));
    for (size_t i = 0; i < n; ++i) {
      const Slot slot = cache.slot(sequence, first + i);
      for (size_t layer = 0; layer < kSavedLayers; ++layer) {
        for (float& f : k) f = normal(random);
        for (float& f : v) f = normal(random);
        cache.store(layer, {&slot, 1}, k.data(), v.data());
      }
    }
  }
}

/// What the last token sees in one layer, as bytes: of every token its position, formats and rows.
std::string seen(const Cache& cache, SequenceId sequence, size_t layer) {
  std::vector<TokenSpan> spans;
  cache.view(sequence, spans);
  std::string all;
  for (const TokenSpan& span : CacheView(spans, layer)) {
    if (!span.seen_from(static_cast<int64_t>(cache.length(sequence)) - 1)) continue;
    for (size_t t = 0; t < span.count; ++t) {
      all += fmt::format("{} {} {}:", span.position(t), name(span.k_format), name(span.v_format));
      for (size_t head = 0; head < kHeads; ++head) {
        all.append(reinterpret_cast<const char*>(span.k_row(t, head)), kv_row_bytes(span.k_format, kSavedDim));
        all.append(reinterpret_cast<const char*>(span.v_row(t, head)), kv_row_bytes(span.v_format, kSavedDim));
      }
    }
  }
  return all;
}

void expect_same(const Cache& a, SequenceId in_a, const Cache& b, SequenceId in_b) {
  ASSERT_EQ(a.length(in_a), b.length(in_b));
  for (size_t layer = 0; layer < kSavedLayers; ++layer) {
    ASSERT_TRUE(seen(a, in_a, layer) == seen(b, in_b, layer)) << "layer " << layer;
  }
}

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const Format format : kv_formats()) {
    all.push_back({"contiguous", format, format});
    all.push_back({"paged", format, format});
    all.push_back({"mixed", Format::f16, Format::f32, format, format});
  }
  all.push_back({"paged", Format::q8_0, Format::f16});
  all.push_back({"paged", Format::q4_0, Format::q4_0, Format::q4_0, Format::q4_0, /*rotate=*/false});
  all.push_back({"mixed", Format::q8_0, Format::q8_0, Format::q8_0, Format::q8_0});
  all.push_back({"mixed", Format::f16, Format::f16, Format::q4_0, Format::q4_0, /*rotate=*/false, 40, 0});
  return all;
}

// At the borders of pages (8) and of cold blocks (128), and where the ring has come round.
constexpr size_t kLengths[] = {0, 1, 2, 3, 4, 7, 8, 9, 127, 128, 129, 147, 148, 149, 255, 256, 257, 276, 300, 399};

TEST(SavedContext, ComesBackToTheBit) {
  std::mt19937 random = fresh_random();
  for (const Kind& kind : kinds()) {
    for (const size_t length : kLengths) {
      SCOPED_TRACE(fmt::format("{} {} {}", kind.layout, name(kind.k), length));
      const auto from = make_cache(plan_of(kind, 2, length + 1));
      const auto to = make_cache(plan_of(kind));
      const SequenceId source = from->create().value(), other = to->create().value(), back = to->create().value();
      append_random(*from, source, length, random);
      append_random(*to, other, 10, random);
      const SwappedContext swapped = swap_out(*from, source);
      EXPECT_EQ(swapped.rows.size(), kSavedLayers * swapped.saved.layer_bytes());
      swapped.saved.check();
      const auto restored = restore_context(*to, back, swapped.saved, [&](size_t layer) {
        return swapped.rows.data() + layer * swapped.saved.layer_bytes();
      });
      ASSERT_TRUE(restored.has_value());
      EXPECT_EQ(restored->converted, 0u);
      const uint32_t seed = static_cast<uint32_t>(random());
      std::mt19937 same(seed), again(seed);
      append_random(*from, source, 1, same);
      append_random(*to, back, 1, again);
      expect_same(*from, source, *to, back);
    }
  }
}

// Without room for cold copies of all tokens some are made of the hot ones, in a longer context: that is counted.
TEST(SavedContext, WhatIsLackingIsConverted) {
  std::mt19937 random = fresh_random();
  CachePlan plan = plan_of({"mixed", Format::f16, Format::f16}, 2, 200);
  plan.resumable = false;
  const auto from = make_cache(plan);
  const SequenceId source = from->create().value();
  append_random(*from, source, 200, random);
  const SwappedContext swapped = swap_out(*from, source);
  const auto converted_in = [&](size_t context) {
    plan.context = context;
    const auto to = make_cache(plan);
    return restore_context(*to, to->create().value(), swapped.saved,
                           [&](size_t layer) { return swapped.rows.data() + layer * swapped.saved.layer_bytes(); })
        ->converted;
  };
  EXPECT_EQ(converted_in(200), 0u);
  EXPECT_EQ(converted_in(400), kSavedLayers * kHeads * (200 - 128));
}

// What comes after is what it would have been: tokens cool, are truncated, are overwritten.
TEST(SavedContext, GoesOnAsIfItHadNeverBeenAway) {
  std::mt19937 random = fresh_random();
  for (const Kind& kind : kinds()) {
    for (int repeat = 0; repeat < (kSanitized ? 5 : 20); ++repeat) {
      SCOPED_TRACE(fmt::format("{} {}", kind.layout, name(kind.k)));
      const auto stays = make_cache(plan_of(kind));
      const SequenceId one = stays->create().value();
      append_random(*stays, one, random() % 300, random);
      const auto goes = make_cache(plan_of(kind));
      const SequenceId two = goes->create().value();
      ASSERT_TRUE(swap_in(*goes, two, swap_out(*stays, one)));
      for (int step = 0; step < 4; ++step) {
        const size_t shorter = stays->length(one) - std::min<size_t>(stays->length(one), random() % 30);
        ASSERT_EQ(stays->truncate(one, shorter), goes->truncate(two, shorter));
        const uint32_t seed = static_cast<uint32_t>(random());
        std::mt19937 same(seed), again(seed);
        const size_t more = std::min<size_t>(random() % 60, kContext - stays->length(one));
        append_random(*stays, one, more, same);
        append_random(*goes, two, more, again);
        expect_same(*stays, one, *goes, two);
      }
    }
  }
}

TEST(SavedContext, FullIsAnAnswer) {
  std::mt19937 random = fresh_random();
  for (const Kind& kind : kinds()) {
    const auto from = make_cache(plan_of(kind)), small = make_cache(plan_of(kind, 1, 40));
    const SequenceId source = from->create().value(), back = small->create().value();
    append_random(*from, source, 41, random);
    EXPECT_FALSE(swap_in(*small, back, swap_out(*from, source)));
    EXPECT_EQ(small->length(back), 0u);
    EXPECT_TRUE(small->append(back, 40));
  }
}

/// Every copy of every token in a layer, decoded and rotated back: (copies, heads, dim) floats, with their position and
/// format.
struct Copy {
  int64_t position;
  bool cold;
  Format format;
  std::vector<float> values;  // as stored, rotated or not
};
std::vector<Copy> copies(const Cache& cache, SequenceId sequence, size_t layer, bool is_v) {
  std::vector<HeldRows> held;
  cache.held(sequence, held);
  std::vector<Copy> all;
  for (const auto& [table, cold] : held) {
    const TokenSpan rows = table.in_layer(layer);
    for (size_t t = 0; t < rows.count; ++t) {
      Copy copy{rows.position(t), cold, is_v ? rows.v_format : rows.k_format, std::vector<float>(kSavedRow)};
      for (size_t head = 0; head < kHeads; ++head) {
        decode_kv_row(copy.format, is_v ? rows.v_row(t, head) : rows.k_row(t, head), &copy.values[head * kSavedDim],
                      kSavedDim);
      }
      all.push_back(copy);
    }
  }
  return all;
}

// From any cache into any other: every row is as near to the finest one that was saved as its format allows.
TEST(SavedContext, IsConvertedBetweenAllKinds) {
  std::mt19937 random = fresh_random();
  for (const Kind& from_kind : kinds()) {
    const auto from = make_cache(plan_of(from_kind));
    const SequenceId source = from->create().value();
    append_random(*from, source, 300, random);
    const SwappedContext swapped = swap_out(*from, source);
    for (const Kind& to_kind : kinds()) {
      SCOPED_TRACE(fmt::format("{} {} to {} {}", from_kind.layout, name(from_kind.k), to_kind.layout, name(to_kind.k)));
      const auto to = make_cache(plan_of(to_kind));
      const SequenceId back = to->create().value();
      ASSERT_TRUE(swap_in(*to, back, swapped));
      ASSERT_EQ(to->length(back), 300u);
      for (const bool is_v : {false, true}) {
        const bool turned = is_v ? from->rotation().v != to->rotation().v : from->rotation().k != to->rotation().k;
        const std::vector<Copy> had = copies(*from, source, 1, is_v);
        std::vector<int> seen_tokens(300, 0);
        for (const Copy& copy : copies(*to, back, 1, is_v)) {
          ++seen_tokens[static_cast<size_t>(copy.position)];
          double nearest = std::numeric_limits<double>::infinity();  // of the copies that were saved
          for (const Copy& old : had) {
            if (old.position != copy.position) continue;
            std::vector<float> want = old.values, bounds(kSavedRow);
            if (turned) hadamard(want.data(), kHeads, kSavedDim);
            kv_row_error_bounds(copy.format, want.data(), bounds.data(), kSavedRow);
            double beyond = 0;
            for (size_t i = 0; i < kSavedRow; ++i) {
              // Decoding and encoding in one format may move a value by a rounding of its step.
              const double allowed = bounds[i] + 1e-6 * std::abs(want[i]);
              beyond = std::max(beyond, std::abs(static_cast<double>(copy.values[i]) - want[i]) - allowed);
            }
            nearest = std::min(nearest, beyond);
          }
          ASSERT_LE(nearest, 0) << "token " << copy.position << (is_v ? " V" : " K");
        }
        for (const int n : seen_tokens) ASSERT_GE(n, 1);
      }
    }
  }
}

TEST(SavedContext, RefusesWhatCannotBe) {
  const SavedContext good{.layers = 1,
                          .kv_heads = 1,
                          .head_dim = 8,
                          .rotation = {},
                          .length = 10,
                          .runs = {{Format::f16, Format::f16, false, 0, 4},
                                   {Format::f16, Format::f16, false, 6, 4},
                                   {Format::q4_0, Format::f32, true, 3, 4}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](auto change) {
    SavedContext bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), Error);
  };
  refused([](SavedContext& c) { c.length = 11; });
  refused([](SavedContext& c) { c.runs[2].first = 5; });
  refused([](SavedContext& c) { c.runs[2].count = 2; });
  refused([](SavedContext& c) { c.runs[1].first = INT64_MAX; });
  refused([](SavedContext& c) { c.runs[1].count = INT64_MAX; });
  refused([](SavedContext& c) { c.runs[1].count = 0; });
  refused([](SavedContext& c) { c.runs[1].first = -1; });
  refused([](SavedContext& c) { c.runs[0].k_format = Format::q4_k; });
  refused([](SavedContext& c) { c.head_dim = 0; });
  refused([](SavedContext& c) { c.head_dim = 24, c.rotation.k = true; });
  refused([](SavedContext& c) { c.layers = size_t{1} << 60; });
  refused([](SavedContext& c) { c.runs.push_back(c.runs[0]); });
}

}  // namespace
}  // namespace contexture
