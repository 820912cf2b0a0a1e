// Fixed-point graphs: each operator and whole small graphs against an oracle with 64-bit and 128-bit integers, and what
// must be the same bits however a model is cut, fed and executed.

#include <gtest/gtest.h>

#include "../model/driver.h"
#include "static_graph/compiled_model.h"
#include "static_graph/fixed_oracle.h"
#include "static_graph/static_driver.h"

namespace contexture {
namespace {

/// Fills an executor's inputs with random numbers that a caller may give, binds everything, and compares each value
/// with the oracle's as it is made.
void compare_with_oracle(const ShardProgram& program, size_t graph_index, std::mt19937& random) {
  ThreadPool pool(2);
  GraphExecutor executor(program, graph_index, pool);
  const Graph& graph = executor.graph();
  FixedOracle oracle(program, graph);
  std::vector<std::vector<std::byte>> buffers;
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const GraphTensor& t = graph.tensors[graph.inputs[i]];
    FixedOracle::Values raw(t.elements());
    buffers.emplace_back(t.bytes());
    size_t indices = SIZE_MAX;  // rows of the smallest table that is gathered from
    for (const GraphNode& n : graph.nodes) {
      if (n.op == Operator::gather && n.inputs[0] == graph.inputs[i])
        indices = std::min(indices, program.constants[n.constants[0]].rows);
    }
    for (size_t e = 0; e < raw.size(); ++e) {
      const auto value = t.name == "atten_mask" ? (random() % 2 ? 65535u : 0u)
                         : t.type == NumberType::i32
                             ? static_cast<uint32_t>(random() % indices)
                             : static_cast<uint32_t>(random() % (t.type == NumberType::u8 ? 256 : 65536));
      raw[e] = value;
      std::memcpy(buffers.back().data() + e * bytes_of(t.type), &value, bytes_of(t.type));
    }
    oracle.set(t.name, raw);
    executor.bind_input(i, buffers.back().data());
  }
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    buffers.emplace_back(graph.tensors[graph.outputs[i]].bytes(), std::byte{0xab});
    executor.bind_output(i, buffers.back().data());
  }
  oracle.run();
  size_t checked = 0;
  executor.observer = [&](uint32_t tensor) {
    const GraphTensor& t = graph.tensors[tensor];
    const FixedOracle::Values& expected = oracle.of(tensor);
    for (size_t e = 0; e < expected.size(); ++e) {
      uint32_t raw = 0;
      std::memcpy(&raw, executor.address(tensor) + e * bytes_of(t.type), bytes_of(t.type));
      ASSERT_EQ(raw, expected[e]) << graph.name << ", " << t.name << "[" << e << "]";
    }
    ++checked;
  };
  executor.run();
  EXPECT_EQ(checked, graph.nodes.size());
}

struct IntegerCase {
  RandomModel model;
  std::string recipe, keep;
  size_t block = 32, kv_bits = 8;
  bool per_head = false;
};

TEST(FixedGraphs, EveryOperatorIsTheOracles) {
  std::mt19937 random = fresh_random();
  const IntegerCase cases[] = {
      {.model = {.ffn_dim = 108}, .recipe = "16a4w", .keep = "output=8"},
      {.model = {.format = Format::q8_0},
       .recipe = "16a4w-block",
       .keep = "ffn_down[1]=8",
       .block = 16,
       .kv_bits = 16,
       .per_head = true},
      {.model = {.family = "qwen2"}, .recipe = "16a8w", .keep = "", .per_head = true},
      {.model = {.family = "qwen3", .head_dim = 24}, .recipe = "16a4w-block", .keep = "", .block = 64},
      {.model = {.family = "gemma2", .score_cap = 20, .logit_cap = 10}, .recipe = "16a4w-block", .keep = ""},
  };
  for (const IntegerCase& c : cases) {
    SCOPED_TRACE(c.model.family + " " + c.recipe);
    const TemporaryFile path;
    const RandomModel& model = c.model;
    write_random_model(model, path.path());
    const ModelFile file = open_model(path.path());
    const CompiledModel compiled(file, {.out = {},
                                        .shards = 2,
                                        .context = 24,
                                        .prefill_length = 5,
                                        .per_head = c.per_head,
                                        .recipe = parse_recipe(c.recipe, c.keep, c.block, c.kv_bits),
                                        .calibration = random_tokens(40, model.vocabulary)});
    const StaticDriver driver(compiled.path());
    for (size_t shard = 0; shard < 2; ++shard) {
      for (size_t graph = 0; graph < 2; ++graph) compare_with_oracle(driver.program(shard), graph, random);
    }
  }
}

/// Logits and all K and V of a prompt and some tokens more.
struct Outcome {
  std::vector<float> logits;
  std::map<std::string, std::vector<std::vector<std::byte>>> kv;
};

Outcome outcome(const std::string& folder, const std::vector<int32_t>& tokens, size_t prompt, bool prefill,
                int threads = 1, std::byte poison = std::byte{128}) {
  StaticDriver driver(folder, threads);
  driver.poison = poison;
  const auto middle = tokens.begin() + static_cast<ptrdiff_t>(prompt);
  Outcome out;
  out.logits = driver.feed({tokens.begin(), middle}, prefill);
  const std::vector<float> more = driver.feed({middle, tokens.end()}, false);
  out.logits.insert(out.logits.end(), more.begin(), more.end());
  out.kv = driver.kv();
  return out;
}

/// K and V of a layer, whatever the layout: heads one after the other.
std::vector<std::byte> joined(const Outcome& o, const std::string& name, size_t heads, size_t token) {
  if (const auto whole = o.kv.find(name); whole != o.kv.end()) return whole->second[token];
  std::vector<std::byte> all;
  for (size_t h = 0; h < heads; ++h) {
    const auto& one = o.kv.at(name + "_" + std::to_string(h))[token];
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

TEST(FixedGraphs, SameBitsHoweverCutFedAndExecuted) {
  const ModelFile file = open_model("models/stories-1m.gguf");
  ModelConfig config = read_config(file.metadata);
  check_weights(file, config);
  std::vector<int32_t> calibration = random_tokens(200, config.vocabulary);
  const CompileTask base{.out = {},
                         .context = 128,
                         .prefill_length = 32,
                         .per_head = false,
                         .recipe = parse_recipe("16a4w-block", "output=8"),
                         .calibration = calibration};
  CompileTask shards = base, heads = base, kv = base;
  shards.shards = 3;
  heads.per_head = true;
  kv.mode = GraphMode::kv;
  const CompiledModel one(file, base), three(file, shards), per_head(file, heads), decode_only(file, kv);
  const std::vector<int32_t> all = random_tokens(100, config.vocabulary);
  for (const size_t prompt : {1u, 31u, 32u, 33u, 95u, 96u}) {
    SCOPED_TRACE(prompt);
    const std::vector<int32_t> tokens(all.begin(), all.begin() + static_cast<ptrdiff_t>(prompt) + 3);
    const Outcome expected = outcome(one.path(), tokens, prompt, true);
    ASSERT_EQ(expected.logits.size(), tokens.size() * config.vocabulary);
    const auto expect_same = [&](const Outcome& other, const char* what) {
      EXPECT_TRUE(other.logits == expected.logits) << what;
      for (const auto& [name, each] : expected.kv) {
        for (size_t t = 0; t < tokens.size(); ++t) {
          ASSERT_TRUE(joined(other, name, config.kv_heads, t) == each[t]) << what << ": " << name << ", token " << t;
        }
      }
    };
    expect_same(outcome(three.path(), tokens, prompt, true), "three shards");
    expect_same(outcome(per_head.path(), tokens, prompt, true), "a tensor a head");
    expect_same(outcome(decode_only.path(), tokens, prompt, true), "kv mode");
    expect_same(outcome(one.path(), tokens, prompt, false), "token by token");
    expect_same(outcome(one.path(), tokens, prompt, true, 2), "two threads");
    expect_same(outcome(one.path(), tokens, prompt, true, 1, std::byte{255}), "poisoned with the largest");
    expect_same(outcome(one.path(), tokens, prompt, true, 1, std::byte{0}), "poisoned with the smallest");
  }
}

/// Scores that span more than the usual mask takes away: it is made deeper, and what unused columns hold still counts
/// for nothing.
TEST(FixedGraphs, MaskReachesBelowWideScores) {
  const TemporaryFile path;
  write_random_model({.score_gain = 40}, path.path());
  const ModelFile file = open_model(path.path());
  const CompiledModel compiled(file, {.out = {},
                                      .context = 32,
                                      .prefill_length = 8,
                                      .recipe = parse_recipe("16a8w"),
                                      .calibration = random_tokens(100, 80)});
  const StaticDriver driver(compiled.path());
  for (const GraphTensor& t : driver.program(0).graphs[0].tensors) {
    if (t.name == "atten_mask") {
      EXPECT_GT(t.encoding.scale * 65535, 300);
    }
  }
  const std::vector<int32_t> tokens = random_tokens(20, 80);
  const Outcome low = outcome(compiled.path(), tokens, 12, true, 1, std::byte{0});
  EXPECT_TRUE(low.logits == outcome(compiled.path(), tokens, 12, true, 1, std::byte{255}).logits);
  EXPECT_TRUE(low.logits == outcome(compiled.path(), tokens, 12, false, 1, std::byte{77}).logits);
}

TEST(FixedGraphs, BatchPrefillIsTheSame) {
  const ModelFile file = open_model("models/stories-1m.gguf");
  ModelConfig config = read_config(file.metadata);
  check_weights(file, config);
  CompileTask task{.out = {},
                   .context = 64,
                   .prefill_length = 16,
                   .recipe = parse_recipe("16a8w", "", 32, 16),
                   .calibration = random_tokens(100, config.vocabulary)};
  const CompiledModel hybrid(file, task);
  task.mode = GraphMode::prefill;
  const CompiledModel batch(file, task);
  const std::vector<int32_t> tokens = random_tokens(48, config.vocabulary);
  const Outcome expected = outcome(hybrid.path(), tokens, 48, true), found = outcome(batch.path(), tokens, 48, true);
  EXPECT_TRUE(found.logits == expected.logits);
  EXPECT_TRUE(found.kv == expected.kv);
}

}  // namespace
}  // namespace contexture
