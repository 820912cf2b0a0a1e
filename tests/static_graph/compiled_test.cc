// Compiled models on the reference backend, through the strict one: whatever way a prompt takes through integer graphs,
// its logits are the same bits.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "backends/static_graph/compile.h"
#include "backends/static_graph/context_directory.h"
#include "backends/static_graph/static_runner.h"
#include "base/error.h"
#include "static_graph/checking_backend.h"
#include "support/built.h"
#include "support/random_model.h"

namespace contexture {
namespace {

std::vector<TokenId> sample_tokens(size_t count, uint32_t seed = 1) {
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>((seed = seed * 1664525 + 1013904223) % 80);
  return tokens;
}

/// A random model, compiled into a folder that is deleted when this goes.
class Compiled {
 public:
  struct Task {
    std::string recipe = "16a4w";
    size_t shards = 1, context = 128, kv_bits = 8;
    bool per_head = true;
    GraphMode mode = GraphMode::hybrid;
  };
  explicit Compiled(const Task& task) {
    write_random_model({.dim = 32, .layers = 2, .ffn_dim = 64}, model_.path());
    const ModelFile file = open_model(model_.path());
    ThreadPool pool(2);
    (void)compile_model(file,
                        {.out = path(),
                         .shards = task.shards,
                         .context = task.context,
                         .prefill_length = 32,
                         .mode = task.mode,
                         .per_head = task.per_head,
                         .recipe = parse_recipe(task.recipe, "", 32, task.kv_bits),
                         .calibration = sample_tokens(200, 7)},
                        pool);
  }
  ~Compiled() { std::filesystem::remove_all(path()); }
  std::string path() const { return model_.path() + ".graphs"; }

 private:
  TemporaryFile model_;
};

/// A compiled model, loaded.
class Loaded {
 public:
  explicit Loaded(const Compiled& compiled, const StaticRunOptions& options = {})
      : directory_(compiled.path()),
        backend_(GraphBackend::load(built_reference_backend())),
        runner_(GraphBackend(checking_backend(backend_.table())), directory_.shards(), options) {
    directory_.check(runner_);
  }

  StaticRunner& runner() { return runner_; }

  /// Logits after a prompt and after each of some tokens behind it.
  std::vector<float> logits(size_t prompt, size_t decoded = 3) {
    runner_.truncate(0);
    std::vector<float> all;
    add(all, sample_tokens(prompt));
    for (const TokenId t : sample_tokens(std::min(decoded, runner_.capacity() - prompt), 5)) add(all, {&t, 1});
    return all;
  }
  void add(std::vector<float>& all, std::span<const TokenId> tokens) {
    const std::span<const float> logits = runner_.feed(tokens);
    all.insert(all.end(), logits.begin(), logits.end());
  }

 private:
  ContextDirectory directory_;
  GraphBackend backend_;
  StaticRunner runner_;
};

TEST(CompiledGraphs, SameBitsEveryWay) {
  const size_t poisoned = poisoned_numbers();
  const auto check = [](const std::string& recipe, size_t kv_bits, const std::vector<size_t>& prompts) {
    const Compiled heads({.recipe = recipe, .kv_bits = kv_bits}),
        two({.recipe = recipe, .shards = 2, .kv_bits = kv_bits}),
        layers({.recipe = recipe, .kv_bits = kv_bits, .per_head = false}),
        alone({.recipe = recipe, .kv_bits = kv_bits, .mode = GraphMode::kv});
    Loaded smart(heads), shift(heads, {.update = KvUpdate::shift_pointer}), kv(heads, {.mode = GraphMode::kv}),
        threads(heads, {.threads = 2}), sharded(two), a_layer(layers),
        all_else(alone, {.update = KvUpdate::shift_pointer, .threads = 2});
    for (const size_t prompt : prompts) {
      SCOPED_TRACE(testing::Message() << recipe << ", " << prompt << " tokens");
      const std::vector<float> expected = smart.logits(prompt);
      EXPECT_EQ(shift.logits(prompt), expected) << "shift pointer";
      EXPECT_EQ(kv.logits(prompt), expected) << "kv";
      EXPECT_EQ(threads.logits(prompt), expected) << "two threads";
      EXPECT_EQ(sharded.logits(prompt), expected) << "two shards";
      EXPECT_EQ(a_layer.logits(prompt), expected) << "a tensor a layer";
      if (prompt < 40) {
        EXPECT_EQ(all_else.logits(prompt), expected) << "compiled for kv";
      }
    }
  };
  check("16a4w-block", 8, {1, 31, 32, 33, 95, 96, 97});  // C - A is 96
  check("16a4w", 8, {33});
  check("16a8w", 16, {33});
  EXPECT_GT(poisoned_numbers(), poisoned);
}

TEST(CompiledGraphs, SameBitsAt512) {
  const Compiled compiled({.shards = 2, .context = 512});
  std::vector<std::vector<float>> expected;  // after each token of the longest prompt, token by token
  Loaded kv(compiled, {.mode = GraphMode::kv});
  (void)kv.runner().feed(
      sample_tokens(481),
      {.on_logits = [&](size_t, std::span<const float> logits) { expected.emplace_back(logits.begin(), logits.end()); },
       .on_progress = {},
       .cancelled = nullptr});
  for (const KvUpdate update : {KvUpdate::smart_mask, KvUpdate::shift_pointer}) {
    Loaded hybrid(compiled, {.update = update});
    for (const size_t prompt : {479, 480, 481}) {
      if (update == KvUpdate::shift_pointer && prompt == 479) continue;
      EXPECT_EQ(hybrid.logits(prompt, 0), expected[prompt - 1]) << name(update) << ", " << prompt << " tokens";
    }
    // In turns: 480 columns for chunks, 511 for tokens, 480 again.
    hybrid.runner().truncate(0);
    const std::vector<TokenId> tokens = sample_tokens(481);
    for (size_t at = 0; const size_t turn : {40, 1, 1, 50, 1}) {
      const std::span<const float> logits = hybrid.runner().feed(std::span(tokens).subspan(at, turn));
      at += turn;
      EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), expected[at - 1]) << name(update) << ", at " << at;
    }
  }
}

/// 96 columns for a chunk, 127 for a token, 96 again: as one text, token by token.
TEST(CompiledGraphs, SameBitsOverTurns) {
  for (const bool per_head : {true, false}) {
    const Compiled compiled({.recipe = "16a4w-block", .shards = 2, .per_head = per_head});
    std::vector<std::vector<float>> made;
    for (const StaticRunOptions& options :
         {StaticRunOptions{.mode = GraphMode::kv}, StaticRunOptions{},
          StaticRunOptions{.update = per_head ? KvUpdate::shift_pointer : KvUpdate::smart_mask}}) {
      Loaded loaded(compiled, options);
      std::vector<float>& logits = made.emplace_back();
      for (const size_t turn : {33, 8, 30}) {
        loaded.add(logits, sample_tokens(turn, static_cast<uint32_t>(turn)));
        for (const TokenId t : sample_tokens(4, 3)) loaded.add(logits, {&t, 1});
      }
    }
    EXPECT_EQ(made[1], made[0]);
    EXPECT_EQ(made[2], made[0]);
  }
}

/// Sums of floats run in other orders with another window, so the last bits may differ: logits are of the order of 1,
/// and a float has 1e-7.
TEST(CompiledGraphs, FloatGraphsAgree) {
  const Compiled heads({.recipe = "float", .shards = 2}), layers({.recipe = "float", .per_head = false}),
      whole({.recipe = "float", .shards = 2, .mode = GraphMode::prefill});
  for (const size_t prompt : {1, 33, 97}) {
    const std::vector<float> expected = Loaded(heads).logits(prompt);
    const auto near = [&](const std::vector<float>& logits) {
      ASSERT_EQ(logits.size(), expected.size());
      for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 1e-4) << i;
    };
    near(Loaded(heads, {.update = KvUpdate::shift_pointer}).logits(prompt));
    near(Loaded(heads, {.mode = GraphMode::kv}).logits(prompt));
    near(Loaded(layers).logits(prompt));
    near(Loaded(whole).logits(prompt));
  }
}

/// A batch prefill's K and V are those that the cache of the other graphs holds.
TEST(CompiledGraphs, PrefillHandsOutTheSameKAndV) {
  const Compiled whole({.shards = 2, .mode = GraphMode::prefill}), hybrid({.shards = 2, .per_head = false});
  Loaded a(whole), b(hybrid);
  EXPECT_EQ(a.logits(50, 2), b.logits(50, 2));
  for (size_t layer = 0; layer < 2; ++layer) {
    for (size_t head = 0; head < 2; ++head) {
      EXPECT_EQ(a.runner().read_k(layer, head), b.runner().read_k(layer, head));
      EXPECT_EQ(a.runner().read_v(layer, head), b.runner().read_v(layer, head));
    }
  }
}

std::string refusal(const Compiled& compiled) {
  try {
    Loaded loaded(compiled);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(CompiledGraphs, WrongFoldersAreRefused) {
  namespace fs = std::filesystem;
  const Compiled compiled({.shards = 2});
  ASSERT_EQ(refusal(compiled), "");
  const auto says = [&](const std::string& part) {
    const std::string said = refusal(compiled);
    EXPECT_NE(said.find(part), std::string::npos) << said;
  };
  const std::string shard = compiled.path() + "/forward_1.bin", json = compiled.path() + "/forward_1_json.json";
  const auto swapped = [&](const std::string& from, const std::string& to, const std::string& part) {
    fs::rename(from, to);
    says(part);
    fs::rename(to, from);
  };
  swapped(shard, shard + ".away", "expected forward_1.bin");
  swapped(json, json + ".away", "expected forward_1_json.json");
  swapped(compiled.path() + "/manifest.json", shard + ".away", "expected manifest.json, found none");
  fs::copy(shard, compiled.path() + "/forward_2.bin");
  says("expected 2 shards, found forward_2.bin too");
  fs::remove(compiled.path() + "/forward_2.bin");
  const auto size = fs::file_size(shard);
  fs::resize_file(shard, size - 1);
  says(fmt::format("expected {} bytes, found {}", size, size - 1));
  fs::resize_file(shard, size);  // a zero where the last byte was, which is of a checksum
  says("expected the hash");
}

}  // namespace
}  // namespace contexture
