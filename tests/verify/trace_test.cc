#include "verify/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "cache/layout.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"
#include "tensor/kv_row.h"
#include "verify/traced_run.h"

namespace contexture {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kPrompt = 420;  // with 16 hot tokens, three blocks of 128 cool

RandomModel small_model(uint32_t seed = 1) {
  return {.dim = 64, .heads = 4, .kv_heads = 2, .head_dim = 32, .seed = seed};
}

RunOptions mixed() {
  RunOptions options;
  options.threads = 2;
  options.cache.layout = "mixed";
  options.cache.options = {{"hot_tokens", 16}, {"sink_tokens", 4}};
  options.cache.shape.v_format = Format::q8_0;
  return options;
}

TEST(Trace, HoldsWhatWasComputedInEveryLayout) {
  for (const std::string_view layout : cache_layouts()) {
    for (const bool rotate : {false, true}) {
      for (const size_t head_dim : {16, 32}) {
        if (kSanitized && rotate != (head_dim == 16)) continue;
        RunOptions options = mixed();
        options.cache.layout = layout;
        options.cache.options = own_options(layout, mixed().cache.options);
        options.cache.rotate = rotate;
        if (head_dim == 16) options.cache.shape.k_format = Format::q4_0;
        RandomModel model = small_model();
        model.head_dim = head_dim;
        const TemporaryFile file;
        write_traced_run(model, options, kPrompt, file.path());
        const Trace trace = open_trace(file.path());
        EXPECT_EQ(trace.size(), 12u) << "2 layers, 6 steps";
        EXPECT_THAT(wrong_attentions(file.path()), IsEmpty())
            << layout << ", rotated " << rotate << ", heads of " << head_dim;
        const TracedAttention last = trace.attention(11);
        EXPECT_EQ(last.layer, 1u);
        EXPECT_EQ(last.step, 5u);
        EXPECT_THAT(last.positions, ElementsAre(423));
        EXPECT_EQ(last.shape.head_dim, head_dim);
        EXPECT_EQ(last.view.size(), layout == "mixed" ? 3u : 1u) << "pages are one span; sinks, cold, hot are three";
        EXPECT_EQ(last.view.back().k_format, options.cache.shape.k_format);
        if (layout == "mixed") {
          EXPECT_EQ(last.view[1].v_format, Format::q4_0);
        }
      }
    }
  }
}

TEST(Trace, WindowsAndSoftCapsAreKept) {
  RandomModel model = small_model();
  model.family = "gemma2";
  model.window = 50;
  model.score_cap = 5;
  model.logit_cap = 30;
  const TemporaryFile file;
  write_traced_run(model, mixed(), kPrompt, file.path());
  const Trace trace = open_trace(file.path());
  EXPECT_EQ(trace.attention(0).shape.window, 50);
  EXPECT_EQ(trace.attention(1).shape.window, 0);
  EXPECT_EQ(trace.attention(1).shape.softcap, 5);
  EXPECT_THAT(wrong_attentions(file.path()), IsEmpty());
}

TEST(Trace, LayersAndStepsAreChosen) {
  const TemporaryFile file;
  write_traced_run(
      small_model(), mixed(), 30, file.path(), [](size_t layer) { return layer == 1; },
      [](size_t step) { return step >= 4; });
  const Trace trace = open_trace(file.path());
  ASSERT_EQ(trace.size(), 2u);
  EXPECT_EQ(trace.attention(0).step, 4u);
  EXPECT_EQ(trace.attention(0).layer, 1u);
  EXPECT_EQ(trace.attention(1).step, 5u);
}

TEST(Trace, NothingIsLeftOfOneThatIsNotFinished) {
  const TemporaryFolder temporary;
  const std::filesystem::path& folder = temporary.path();
  const std::string path = (folder / "t.gguf").string();
  {
    TraceWriter writer(path, "m", every_one, every_one);
    EXPECT_THROW(writer.finish(), Error) << "nothing was traced";
  }
  EXPECT_THROW(TraceWriter((folder / "no" / "t.gguf").string(), "m", every_one, every_one), Error);
  EXPECT_THROW(TraceWriter(folder.string(), "m", every_one, every_one), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

/// The errors that a comparison of attentions once had, each made in a copy of a trace.
class PlantedTrace : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    file_ = new TemporaryFile;
    write_traced_run(small_model(), mixed(), kPrompt, file_->path());
  }
  static void TearDownTestSuite() { delete file_; }

  /// Layer 1 of step 2, a lone token over sinks, cold and hot ones; and of step 1, a chunk of the prompt.
  const std::string lone = "blk.1.step.2.seq.0.", chunk = "blk.1.step.1.seq.0.";

  /// Layer 1 of a step, its output computed again with a mistake.
  void expect_found(const char* name, size_t step, const std::function<void(TracedAttention&)>& mistake) {
    const Trace trace = open_trace(file_->path());
    TraceCopy copy(file_->path());
    for (size_t i = 0; i < trace.size(); ++i) {
      TracedAttention a = trace.attention(i);
      if (a.step != step || a.layer != 1) continue;
      mistake(a);
      AttentionScratch scratch(a.shape, 1);
      ThreadPool pool(1);
      const AttentionQueries queries = a.queries();
      attend({&queries, 1}, a.shape, scratch, pool);
      std::span<float> out = copy.values<float>(fmt::format("blk.1.step.{}.seq.0.out", step));
      std::copy(a.out.begin(), a.out.end(), out.begin());
    }
    expect_wrong(name, copy, step);
  }

  void expect_wrong(const char* name, const TraceCopy& copy, size_t step) {
    const TemporaryFile planted;
    copy.write(planted.path());
    EXPECT_THAT(wrong_attentions(planted.path()), ElementsAre(fmt::format("1/{}", step))) << name;
  }

  static TemporaryFile* file_;
};

TemporaryFile* PlantedTrace::file_ = nullptr;

TEST_F(PlantedTrace, ACopyIsAsGoodAsTheFirst) {
  const TemporaryFile again;
  TraceCopy(file_->path()).write(again.path());
  EXPECT_THAT(wrong_attentions(again.path()), IsEmpty());
}

TEST_F(PlantedTrace, TheOrderOfTensorsMeansNothing) {
  TraceCopy copy(file_->path());
  std::reverse(copy.tensors.begin(), copy.tensors.end());
  const TemporaryFile again;
  copy.write(again.path());
  EXPECT_THAT(wrong_attentions(again.path()), IsEmpty());
}

TEST_F(PlantedTrace, KIndexedWithTheStrideOfV) {
  for (const size_t step : {1, 2}) {
    expect_found("K by V's stride", step, [](TracedAttention& a) {
      for (TokenSpan& span : a.view) {
        ASSERT_LE(span.v_token_stride, span.k_token_stride);
        span.k_token_stride = span.v_token_stride;
        span.k_head_stride = span.v_head_stride;
      }
    });
  }
}

TEST_F(PlantedTrace, HeadsAndTokensSwapped) {
  for (const size_t step : {1, 2}) {
    expect_found("K, V (tokens, heads) read as (heads, tokens)", step, [](TracedAttention& a) {
      for (TokenSpan& span : a.view) {
        span.k_token_stride = span.k_head_stride;
        span.k_head_stride *= span.count;
        span.v_token_stride = span.v_head_stride;
        span.v_head_stride *= span.count;
      }
    });
  }
}

TEST_F(PlantedTrace, OutputTransposed) {
  TraceCopy copy(file_->path());
  const std::span<float> out = copy.values<float>(chunk + "out");
  const std::vector<float> right(out.begin(), out.end());
  const auto queries = static_cast<size_t>(copy.tensor(chunk + "out").shape[0]);
  for (size_t t = 0; t < queries; ++t) {
    for (size_t head = 0; head < 4; ++head) {
      std::copy_n(right.data() + (t * 4 + head) * 32, 32, out.data() + (head * queries + t) * 32);
    }
  }
  expect_wrong("(heads, tokens) for (tokens, heads)", copy, 1);

  TraceCopy lone_copy(file_->path());
  const std::span<float> one = lone_copy.values<float>(lone + "out");
  const std::vector<float> before(one.begin(), one.end());
  for (size_t head = 0; head < 4; ++head) {
    for (size_t d = 0; d < 32; ++d) one[d * 4 + head] = before[head * 32 + d];
  }
  expect_wrong("(channels, heads) for (heads, channels)", lone_copy, 2);
}

TEST_F(PlantedTrace, ColdPartsIgnored) {
  for (const size_t step : {1, 2}) {
    expect_found("no cold tokens", step, [](TracedAttention& a) {
      EXPECT_GT(std::erase_if(a.view, [](const TokenSpan& span) { return span.v_format == Format::q4_0; }), 0u);
    });
  }
}

TEST_F(PlantedTrace, AMaskWhereThereIsNone) {
  for (const size_t step : {1, 2}) {
    expect_found("a causal mask shifted by one", step, [](TracedAttention& a) {
      for (int64_t& p : a.positions) --p;
    });
    expect_found("a window", step, [](TracedAttention& a) { a.shape.window = 64; });
    expect_found("hot tokens hidden from all", step, [](TracedAttention& a) { a.view.back().queries_until = 0; });
  }
}

TEST_F(PlantedTrace, PartsExchanged) {
  TraceCopy copy(file_->path());
  std::swap(copy.tensor(lone + "q").name, copy.tensor(lone + "out").name);
  expect_wrong("q and out", copy, 2);
  // The cache itself forgets its cold part, and attention is right for what it was shown.
  TraceCopy without(file_->path());
  const TracedAttention a = open_trace(file_->path()).attention(5);
  ASSERT_EQ(a.step, 2u);
  const std::span<int64_t> spans = without.values<int64_t>(lone + "spans");
  spans[3 + 2] = 0;  // the cold span is seen by no query
  expect_wrong("a token nobody sees", without, 2);
}

/// Opening a changed copy is refused in one line.
class DamagedTrace : public PlantedTrace {
 protected:
  void expect_refused(const std::function<void(TraceCopy&)>& damage, const std::string& says) {
    TraceCopy copy(file_->path());
    damage(copy);
    const TemporaryFile damaged;
    copy.write(damaged.path());
    try {
      (void)open_trace(damaged.path());
      FAIL() << "opened; should say: " << says;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr(says));
      EXPECT_THAT(e.what(), testing::Not(HasSubstr("\n")));
    }
  }
};

TEST_F(DamagedTrace, IsRefusedWithTheReason) {
  for (const char* name :
       {"q", "out", "positions", "spans", "span.0.sinks.k", "span.1.cold.v", "span.2.hot.positions"}) {
    expect_refused([&](TraceCopy& c) { c.remove(lone + name); }, fmt::format("{}{} is missing", lone, name));
    expect_refused([&](TraceCopy& c) { c.tensor(lone + name).name += "x"; }, "is missing");
    expect_refused(
        [&](TraceCopy& c) {
          std::vector<int64_t>& shape = c.tensor(lone + name).shape;
          shape.insert(shape.begin(), 1);
        },
        "has the shape (1, ");
  }
  const std::vector<std::byte> bytes(64);
  expect_refused([&](TraceCopy& c) { c.add("token_embd.weight", Format::f32, {16}, bytes); }, "is not a trace's");
  expect_refused([&](TraceCopy& c) { c.add("blk.01.step.0.seq.0.q", Format::f32, {16}, bytes); }, "is not a trace's");
  expect_refused([&](TraceCopy& c) { c.add("blk.99999999999.step.0.seq.0.q", Format::f32, {16}, bytes); },
                 "is not a trace's");
  expect_refused([&](TraceCopy& c) { c.add(lone + "mask", Format::f32, {16}, bytes); }, "14 tensors, of which 13");
  expect_refused([&](TraceCopy& c) { c.add("blk.7.step.0.seq.0.q", Format::f32, {16}, bytes); },
                 "contexture.trace.blk.7.heads");
  expect_refused([&](TraceCopy& c) { c.tensors.clear(); }, "no attention");
  expect_refused(
      [&](TraceCopy& c) {
        c.tensor(lone + "positions").format = Format::f32, c.tensor(lone + "positions").shape[0] = 2;
      },
      "must be i64");
  expect_refused([&](TraceCopy& c) { c.tensor(lone + "q").shape = {1, 2, 64}; }, "must have (1, 4, 32)");
  expect_refused([&](TraceCopy& c) { c.tensor(lone + "q").shape = {2, 4, 16}; }, "must have (2, 4, 32)");
  expect_refused([&](TraceCopy& c) { c.values<int64_t>(lone + "positions")[0] = -1; }, "position -1");
  expect_refused([&](TraceCopy& c) { c.values<int64_t>(lone + "positions")[0] = INT64_MAX; },
                 "position 9223372036854775807");
  expect_refused([&](TraceCopy& c) { c.values<int64_t>(lone + "span.1.cold.positions")[5] = 4; }, "even steps");
  expect_refused([&](TraceCopy& c) { c.values<int64_t>(lone + "span.1.cold.positions")[1] = 0; }, "even steps");
  expect_refused([&](TraceCopy& c) { ++c.values<int64_t>(lone + "spans")[0]; },
                 "span.0.sinks.positions has the shape (4) and must have (5)");
  expect_refused([&](TraceCopy& c) { c.values<int64_t>(lone + "spans")[3] = INT64_MAX; },
                 "span 1 has 9223372036854775807 tokens");
  expect_refused([&](TraceCopy& c) { c.values<int64_t>(lone + "spans")[3] = -1; }, "span 1 has -1 tokens");

  const std::string keys = "contexture.trace.";
  expect_refused([&](TraceCopy& c) { c.metadata.forget(keys + "version"); }, "is no trace");
  expect_refused([&](TraceCopy& c) { c.metadata.set_int(keys + "version", 2); }, "contexture.trace.version");
  expect_refused([&](TraceCopy& c) { c.metadata.set_int(keys + "blk.1.heads", 1 << 30); }, "blk.1.heads");
  expect_refused([&](TraceCopy& c) { c.metadata.set_int(keys + "blk.1.kv_heads", 3); }, "which no model has");
  expect_refused([&](TraceCopy& c) { c.metadata.set_int(keys + "blk.1.kv_heads", 4); }, "span.0.sinks.k has the shape");
  expect_refused([&](TraceCopy& c) { c.metadata.set_int(keys + "blk.1.head_dim", 20); }, "which no model has");
  expect_refused([&](TraceCopy& c) { c.metadata.set_float(keys + "blk.1.scale", NAN); }, "blk.1.scale");
  expect_refused([&](TraceCopy& c) { c.metadata.set_int(keys + "blk.1.window", -1); }, "blk.1.window");
}

}  // namespace
}  // namespace contexture
