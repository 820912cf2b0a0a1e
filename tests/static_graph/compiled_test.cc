// Compiled models on the reference backend, through the strict one, whatever way a prompt takes through the graphs.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "static_graph/checking_backend.h"
#include "static_graph/compile.h"
#include "static_graph/context_directory.h"
#include "static_graph/static_runner.h"
#include "support/random_model.h"

namespace contexture {
namespace {

std::vector<TokenId> some_tokens(size_t count, uint32_t seed = 1) {
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
    write_random_model({.layers = 3}, model_.path());
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
                         .calibration = some_tokens(200, 7)},
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
        backend_(GraphBackend::load(CONTEXTURE_REFERENCE_BACKEND)),
        runner_(GraphBackend(checking_backend(backend_.table())), directory_.shards(), options) {
    directory_.check(runner_);
  }

  StaticRunner& runner() { return runner_; }

  /// Logits after a prompt and after each of some tokens behind it.
  std::vector<float> logits(size_t prompt, size_t decoded = 3) {
    runner_.truncate(0);
    std::vector<float> all;
    add(all, some_tokens(prompt));
    for (const TokenId t : some_tokens(std::min(decoded, runner_.capacity() - prompt), 5)) add(all, {&t, 1});
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

constexpr KvUpdate kShift = KvUpdate::shift_pointer;

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
    near(Loaded(heads, {.update = kShift}).logits(prompt));
    near(Loaded(heads, {.mode = GraphMode::kv}).logits(prompt));
    near(Loaded(layers).logits(prompt));
    near(Loaded(whole).logits(prompt));
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
  const Compiled compiled({.recipe = "float", .shards = 2});
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
