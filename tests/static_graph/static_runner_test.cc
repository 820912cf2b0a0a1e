// Shards over shared buffers, against a list of tokens (toy_backend.h), through a backend that is strict
// (checking_backend.h).

#include "backends/static_graph/static_runner.h"

#include <gtest/gtest.h>

#include <numeric>

#include "backends/static_graph/context_manifest.h"
#include "contexture/error.h"
#include "static_graph/checking_backend.h"
#include "static_graph/toy_backend.h"

namespace contexture {
namespace {

std::vector<TokenId> some_tokens(size_t count, uint32_t seed = 1) {
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>((seed = seed * 1664525 + 1013904223) >> 28);
  return tokens;
}

/// A runner with the bytes that it runs.
struct Toy {
  explicit Toy(const ToyModel& m, const StaticRunOptions& options = {}, const cxg_backend& backend = toy_backend())
      : model(m) {
    for (uint32_t i = 0; i < m.shards; ++i) files.push_back(m.shard(i));
    std::vector<ShardBytes> shards;
    for (uint32_t i = 0; i < m.shards; ++i) shards.push_back({shard_binary_name(i), files[i]});
    runner.emplace(GraphBackend(checking_backend(backend)), shards, options);
  }

  /// Feeds tokens and holds the logits of the last against the oracle's.
  void feed(std::span<const TokenId> tokens) {
    const std::span<const float> logits = runner->feed(tokens);
    all.insert(all.end(), tokens.begin(), tokens.end());
    ASSERT_EQ(std::vector<float>(logits.begin(), logits.end()), toy_logits(model, all).back())
        << "after " << all.size();
  }

  ToyModel model;
  std::vector<std::vector<std::byte>> files;
  std::optional<StaticRunner> runner;
  std::vector<TokenId> all;
};

struct Way {
  KvUpdate update;
  bool per_head;
  GraphMode mode;
};
constexpr KvUpdate kSmart = KvUpdate::smart_mask, kShift = KvUpdate::shift_pointer;
constexpr Way kWays[] = {{kSmart, true, GraphMode::hybrid}, {kSmart, false, GraphMode::hybrid},
                         {kShift, true, GraphMode::hybrid}, {kSmart, true, GraphMode::kv},
                         {kSmart, false, GraphMode::kv},    {kShift, true, GraphMode::kv}};

TEST(StaticRunner, PromptsOfEveryLength) {
  for (const Way& way : kWays) {
    for (const uint32_t shards : {1, 3}) {
      // C - A is 56 and A is 8, as 480 and 32.
      for (const size_t length : {1, 7, 8, 9, 55, 56, 57, 63}) {
        SCOPED_TRACE(testing::Message() << name(way.update) << " " << name(way.mode) << " per head " << way.per_head
                                        << ", " << shards << " shards, " << length << " tokens");
        Toy toy({.shards = shards, .per_head = way.per_head, .wide_kv = shards == 1},
                {.update = way.update, .mode = way.mode});
        EXPECT_EQ(toy.runner->capacity(), 63u);
        toy.feed(some_tokens(length));
        for (const TokenId t : some_tokens(std::min<size_t>(3, 63 - length), 5)) toy.feed({&t, 1});
        if (HasFatalFailure()) return;
      }
    }
  }
  EXPECT_GT(poisoned_numbers(), 100'000u);
}

TEST(StaticRunner, TurnsKeepTheirPositions) {
  for (const Way& way : kWays) {
    SCOPED_TRACE(testing::Message() << name(way.update) << " " << name(way.mode) << " per head " << way.per_head);
    Toy toy({.shards = 3, .per_head = way.per_head}, {.update = way.update, .mode = way.mode});
    for (const size_t turn : {9, 2, 17}) {
      toy.feed(some_tokens(turn, static_cast<uint32_t>(turn)));  // 56 columns again
      for (const TokenId t : some_tokens(4, 9)) toy.feed({&t, 1});
    }
    toy.runner->truncate(11);
    toy.all.resize(11);
    toy.feed(some_tokens(10, 77));
    toy.feed(some_tokens(40, 78));
    EXPECT_EQ(toy.runner->length(), 61u);
    toy.runner->truncate(0);
    toy.all.clear();
    toy.feed(some_tokens(12, 79));
  }
}

TEST(StaticRunner, LogitsOfEveryPosition) {
  const std::vector<TokenId> tokens = some_tokens(60);
  for (const Way& way : kWays) {
    Toy toy({.per_head = way.per_head}, {.update = way.update, .mode = way.mode});
    const std::vector<std::vector<float>> expected = toy_logits(toy.model, tokens);
    size_t next = 0;
    (void)toy.runner->feed(tokens, {.on_logits =
                                        [&](size_t token, std::span<const float> logits) {
                                          EXPECT_EQ(token, next++);
                                          EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), expected[token]);
                                        },
                                    .on_progress = {},
                                    .cancelled = nullptr});
    EXPECT_EQ(next, tokens.size());
  }
}

TEST(StaticRunner, PrefillModeSeesTheWholePromptAtOnce) {
  for (const KvUpdate update : {kSmart, kShift}) {
    Toy toy({.chunk = 64, .shards = 2, .has_decode = false}, {.update = update});
    EXPECT_EQ(toy.runner->mode(), GraphMode::prefill);
    EXPECT_EQ(toy.runner->capacity(), 64u);
    toy.feed(some_tokens(20));
    toy.feed(some_tokens(1, 3));
    toy.feed(some_tokens(43, 4));
    toy.runner->truncate(2);
    toy.all.resize(2);
    toy.feed(some_tokens(5, 5));
  }
}

TEST(StaticRunner, HandsOutKAndV) {
  const auto check = [](const ToyModel& model, const StaticRunOptions& options) {
    Toy toy(model, options);
    toy.feed(some_tokens(19));
    for (uint32_t layer = 0; layer < model.layers; ++layer) {
      for (uint32_t head = 0; head < model.heads; ++head) {
        EXPECT_EQ(toy.runner->read_k(layer, head), toy_kv(model, toy.all, false, layer, head));
        EXPECT_EQ(toy.runner->read_v(layer, head), toy_kv(model, toy.all, true, layer, head));
      }
    }
  };
  for (const Way& way : kWays) {
    check({.shards = 2, .per_head = way.per_head, .wide_kv = true}, {.update = way.update, .mode = way.mode});
  }
  check({.chunk = 64, .has_decode = false}, {});
  check({.chunk = 64, .per_head = false, .has_decode = false}, {});
}

TEST(StaticRunner, IsCancelledBetweenExecutions) {
  Toy toy({}, {});
  std::atomic<bool> cancelled = false;
  const std::vector<TokenId> tokens = some_tokens(30);
  const StaticRunner::Feed feed = {
      .on_logits = {}, .on_progress = [&](size_t done, size_t) { cancelled = done >= 16; }, .cancelled = &cancelled};
  EXPECT_TRUE(toy.runner->feed(tokens, feed).empty());
  EXPECT_EQ(toy.runner->length(), 16u);
  toy.all.assign(tokens.begin(), tokens.begin() + 16);
  toy.feed(std::span(tokens).subspan(16));
}

/// Smart mask's buffers never move: what is registered at the beginning is all. A shifting pointer is a new handle for
/// every place of every tensor.
TEST(StaticRunner, RegistersOnce) {
  const ToyModel model = {.shards = 3};
  Toy smart(model, {});
  const size_t before = smart.runner->memory().registered;
  // In: K and V of 3 layers and 2 heads, tokens, positions, 3 masks, 2 each of hidden, cos, sin. Out: K and V, 2
  // hidden, cos, sin, logits. Of both graphs; K's and V's outputs of one token lie in the larger graph's place, [1,4,1]
  // each.
  EXPECT_EQ(before, 2u * (12 + 2 + 3 + 6 + 12 + 2 + 2 + 1));
  smart.feed(some_tokens(20));
  for (const TokenId t : some_tokens(5)) smart.feed({&t, 1});
  EXPECT_EQ(smart.runner->memory().registered, before);

  Toy shift(model, {.update = kShift});
  EXPECT_EQ(shift.runner->memory().registered, before);
  shift.feed(some_tokens(20));
  // A chunk moves K in, V in and V out of 6 heads; the first was bound there already, and so was what comes after.
  for (const TokenId t : some_tokens(5)) shift.feed({&t, 1});
  EXPECT_EQ(shift.runner->memory().registered, before + 18 * (2 + 5));
}

TEST(StaticRunner, CountsWhatItMoves) {
  for (const Way& way : kWays) {
    Toy toy({.per_head = way.per_head}, {.update = way.update, .mode = way.mode});
    toy.feed(some_tokens(3));
    const FixedKv::Moved before = toy.runner->kv().moved();
    const TokenId t = 1;
    toy.feed({&t, 1});
    EXPECT_EQ(toy.runner->kv().moved().k - before.k, 3u * 2 * 4);
    EXPECT_EQ(toy.runner->kv().moved().v - before.v, way.update == kSmart ? 3u * 2 * 4 : 0);
    EXPECT_EQ(toy.runner->memory().kv, toy.runner->kv().bytes());
  }
}

std::string refusal(const ToyModel& model, const StaticRunOptions& options = {}) {
  try {
    const Toy toy(model, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(StaticRunner, RefusesWhatIsNoModel) {
  EXPECT_NE(refusal({.shards = 3, .fault = 1}).find("expected ufixed16 [1,8,8], scale 0.125"), std::string::npos)
      << refusal({.shards = 3, .fault = 1});
  EXPECT_NE(refusal({.shards = 3, .fault = 2}).find("forward_1.bin"), std::string::npos)
      << refusal({.shards = 3, .fault = 2});
  EXPECT_NE(refusal({.has_prefill = false}, {.mode = GraphMode::hybrid}).find("kv alone"), std::string::npos);
  EXPECT_NE(refusal({}, {.mode = GraphMode::prefill}).find("mode prefill is not in these graphs"), std::string::npos);
  EXPECT_NE(refusal({.has_decode = false}).find("wants a kv_forward"), std::string::npos);
  EXPECT_NE(refusal({.chunk = 64}).find("leaves no cache"), std::string::npos);
  EXPECT_NE(refusal({.per_head = false}, {.update = kShift}).find("shift-pointer"), std::string::npos);
}

TEST(StaticRunner, DescribesEveryTensor) {
  const Toy toy({.shards = 3}, {});
  const std::string text = describe(toy.runner->shards()[0]);
  EXPECT_NE(text.find("forward_0.bin, prefill_forward: 7 inputs, 7 outputs"), std::string::npos) << text;
  EXPECT_NE(text.find("atten_mask"), std::string::npos);
  EXPECT_NE(text.find("1024 B  ufixed16 [1,1,8,64], scale 0.00389105 offset -65535"), std::string::npos) << text;
}

TEST(GraphBackend, SaysWhatIsWrong) {
  const auto refusal = [](const std::string& name) -> std::string {
    try {
      (void)GraphBackend::load(name);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal("nothing").find("no graph backend nothing"), std::string::npos);
  EXPECT_NE(refusal("/no/such.so").find("/no/such.so"), std::string::npos);
  EXPECT_NE(refusal("libm.so.6").find("exports no contexture_graph_backend"), std::string::npos);
}

// The checking backend must refuse what it is there to refuse.
class CheckingBackend : public testing::Test {
 protected:
  void SetUp() override {
    const cxg_config config = {.threads = 1, .log_level = 0, .options = ""};
    ASSERT_EQ(b.open_device(&config, &device, &error), 0);
    ASSERT_EQ(b.allocate(device, 1 << 16, &block, &error), 0);
    ASSERT_EQ(b.create_context(device, bytes.data(), bytes.size(), &context, &error), 0);
  }
  void TearDown() override {
    b.free_context(context);
    b.release(device, block);
    b.close_device(device);
  }
  cxg_view view(uint64_t offset, const cxg_tensor& t) const { return {block, offset, t.type, t.rank, t.dims}; }

  const cxg_backend& b = checking_backend(toy_backend(), 4);
  std::vector<std::byte> bytes = ToyModel{}.shard(0);
  cxg_device* device = nullptr;
  cxg_context* context = nullptr;
  void* block = nullptr;
  cxg_error error = {};
  cxg_memory* memory = nullptr;
};

TEST_F(CheckingBackend, RefusesViews) {
  const cxg_tensor& tokens = b.graph(context, 0)->inputs[0];
  cxg_view v = view(2, tokens);
  EXPECT_NE(b.register_memory(context, &v, &memory, &error), 0);
  EXPECT_NE(std::string(error.text).find("aligned"), std::string::npos);
  v = view(1 << 16, tokens);
  EXPECT_NE(b.register_memory(context, &v, &memory, &error), 0);
  v.block = &v;
  EXPECT_NE(b.register_memory(context, &v, &memory, &error), 0);
  v = view(4, tokens);
  EXPECT_EQ(b.register_memory(context, &v, &memory, &error), 0);
  cxg_memory* again = nullptr;
  EXPECT_NE(b.register_memory(context, &v, &again, &error), 0);
  EXPECT_NE(std::string(error.text).find("twice"), std::string::npos);
  const cxg_buffer buffer = {memory, nullptr, 0};
  EXPECT_EQ(b.bind(context, 0, CXG_INPUT, 0, &buffer, &error), 0);
  EXPECT_NE(b.bind(context, 0, CXG_OUTPUT, 0, &buffer, &error), 0);
  EXPECT_NE(std::string(error.text).find("type or shape"), std::string::npos);
  b.deregister_memory(context, memory);
}

TEST_F(CheckingBackend, RefusesUnboundAndOverlapping) {
  EXPECT_NE(b.execute(context, 0, &error), 0);
  EXPECT_NE(std::string(error.text).find("not bound"), std::string::npos);
  const cxg_graph& g = *b.graph(context, 0);
  std::vector<std::byte> memory_of_all(1 << 16);
  const auto bind_all = [&](size_t distance) {
    size_t at = 0;
    for (const uint32_t direction : {CXG_INPUT, CXG_OUTPUT}) {
      for (uint32_t i = 0; i < (direction == CXG_INPUT ? g.input_count : g.output_count); ++i, at += distance) {
        const cxg_buffer buffer = {nullptr, memory_of_all.data() + at, memory_of_all.size() - at};
        ASSERT_EQ(b.bind(context, 0, direction, i, &buffer, &error), 0) << error.text;
      }
    }
  };
  bind_all(16);
  EXPECT_NE(b.execute(context, 0, &error), 0);
  EXPECT_NE(std::string(error.text).find("overlaps"), std::string::npos);
  bind_all(2048);
  EXPECT_EQ(b.execute(context, 0, &error), 0) << error.text;
}

}  // namespace
}  // namespace contexture
