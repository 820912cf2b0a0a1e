// What `compile` writes: how layers are cut, what goes in and out of each shard, files that are whole, the same bytes
// each time, and refused when they are damaged.

#include "backends/static_graph/compile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "backends/static_graph/constant_data.h"
#include "backends/static_graph/container.h"
#include "backends/static_graph/context_manifest.h"
#include "base/error.h"
#include "model/weights.h"
#include "static_graph/compiled_model.h"
#include "static_graph/static_driver.h"
#include "support/random.h"

namespace contexture {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::string bytes_at(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(SplitLayers, BalancedAndWhole) {
  const auto sizes = [](size_t layers, size_t shards) {
    std::vector<size_t> all;
    for (const ShardRange& r : split_layers(layers, shards)) all.push_back(r.layers);
    return all;
  };
  EXPECT_EQ(sizes(28, 3), (std::vector<size_t>{10, 9, 9}));
  EXPECT_EQ(sizes(26, 4), (std::vector<size_t>{7, 7, 6, 6}));
  EXPECT_EQ(sizes(5, 5), (std::vector<size_t>{1, 1, 1, 1, 1}));
  EXPECT_THROW(split_layers(4, 5), Error);
  EXPECT_THROW(split_layers(4, 0), Error);
}

TEST(Recipes, KeepsBitsByNameAndLayer) {
  const Recipe r = parse_recipe("16a4w-block", "output=8,ffn_down[0-3]=8,attn_v[2]=8");
  EXPECT_EQ(r.kind_of("output", 9), ConstantKind::i8);
  EXPECT_EQ(r.kind_of("ffn_down", 3), ConstantKind::i8);
  EXPECT_EQ(r.kind_of("ffn_down", 4), ConstantKind::i4_blocks);
  EXPECT_EQ(r.kind_of("attn_v", 2), ConstantKind::i8);
  EXPECT_EQ(r.kind_of("attn_v", 1), ConstantKind::i4_blocks);
  EXPECT_EQ(parse_recipe("16a8w", "attn_q=4").kind_of("attn_q", 0), ConstantKind::i4);
  for (const char* bad :
       {"output", "output=", "output=5", "nothing=8", "ffn_up[3-1]=8", "ffn_up[1=8", "ffn_up[]=8", "output=8x"}) {
    EXPECT_THAT(error_of([&] { parse_recipe("16a4w", bad); }), HasSubstr("keeps nothing")) << bad;
  }
  EXPECT_THROW(parse_recipe("8a8w"), Error);
  EXPECT_THROW(parse_recipe("16a4w-block", "", 48), Error);
}

/// Each weight is the nearest that its scale and factor hold; a scale may be smaller than the largest weight needs only
/// where that leaves a smaller error.
TEST(Weights, AreTheNearestThatARowHolds) {
  std::mt19937 random = fresh_random();
  FixedRow row;
  for (const size_t columns : {1u, 40u, 172u, 256u}) {
    const std::vector<float> weights = random_floats(random, columns, 0.1f);
    const float largest = std::fabs(*std::max_element(weights.begin(), weights.end(),
                                                      [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
    for (const ConstantKind kind : {ConstantKind::i8, ConstantKind::i4, ConstantKind::i4_blocks}) {
      const float limit = kind == ConstantKind::i8 ? 127 : 7;
      quantise_weights(weights, kind, 16, row);
      double error = 0, plain_error = 0;
      for (size_t i = 0; i < columns; ++i) {
        const float step = row.scale * static_cast<float>(kind == ConstantKind::i4_blocks ? row.factors[i / 16] : 1);
        const float nearest = std::clamp(std::nearbyint(weights[i] / step), -limit, limit);
        // A weight in the middle between two may go either way.
        EXPECT_NEAR(row.weights[i], nearest,
                    std::fabs(weights[i] / step - std::floor(weights[i] / step) - 0.5f) < 1e-3f ? 1 : 0);
        error += std::pow(weights[i] - step * row.weights[i], 2);
        plain_error += std::pow(weights[i] - largest / limit * std::nearbyint(weights[i] / (largest / limit)), 2);
      }
      // In a block or two, chance may favour the scale of the whole row.
      if (kind != ConstantKind::i4_blocks || columns > 100) {
        EXPECT_LE(error, plain_error * 1.0001 + 1e-12) << columns << " columns, kind " << name(kind);
      }
    }
  }
  quantise_weights(std::vector<float>(40, 0.f), ConstantKind::i4_blocks, 32, row);  // no scale to divide by
  EXPECT_EQ(row.weights, std::vector<int8_t>(40, 0));
}

/// The counts of the document that describes eight shards of two layers with eight KV heads.
TEST(Compile, InputsAndOutputsOfEightShards) {
  const TemporaryFile path;
  write_random_model({.dim = 64, .layers = 16, .heads = 8, .kv_heads = 8, .ffn_dim = 32}, path.path());
  const ModelFile file = open_model(path.path());
  const auto expect_kv = [&](const CompileTask& task, size_t kv) {
    const CompiledModel compiled(file, task);
    const StaticDriver driver(compiled.path());
    ASSERT_EQ(driver.shards(), 8u);
    for (size_t shard = 0; shard < 8; ++shard) {
      for (const Graph& graph : driver.program(shard).graphs) {
        EXPECT_EQ(graph.inputs.size(), kv + (shard == 0 ? 3 : 4));
        EXPECT_EQ(graph.outputs.size(), kv + (shard == 0 ? 3 : 1));
      }
    }
  };
  CompileTask task{.out = {}, .shards = 8, .context = 32, .prefill_length = 8, .recipe = {}};
  expect_kv(task, 32);
  task.per_head = false;
  expect_kv(task, 4);
}

/// The description's numbers of bytes: what the executor allocates and what the tensors have.
TEST(Compile, DescriptionSaysWhatAGraphNeeds) {
  const ModelFile file = open_model("models/stories-1m.gguf");
  const CompiledModel compiled(file, {.out = {}, .shards = 2, .context = 64, .recipe = {}});
  const StaticDriver driver(compiled.path());
  ThreadPool pool(1);
  for (size_t shard = 0; shard < 2; ++shard) {
    const ShardProgram& program = driver.program(shard);
    const auto json = nlohmann::json::parse(bytes_at(compiled.path() + "/" + shard_json_name(shard)));
    size_t constants = 0;
    for (const GraphConstant& c : program.constants) constants += c.data.size();
    for (size_t g = 0; g < 2; ++g) {
      const auto& info = json["info"]["graphs"][g]["info"];
      size_t io = 0;
      for (const uint32_t i : program.graphs[g].inputs) io += program.graphs[g].tensors[i].bytes();
      for (const uint32_t i : program.graphs[g].outputs) io += program.graphs[g].tensors[i].bytes();
      const GraphExecutor executor(program, g, pool);
      EXPECT_EQ(info["graphBlobInfo"]["info"]["spillFillBufferSize"], executor.workspace_bytes());
      EXPECT_EQ(info["graphBlobInfoV2"]["ioTensorSize"], io);
      EXPECT_EQ(info["graphBlobInfoV2"]["sharedWeightsSize"], constants) << "both graphs read all of them";
      EXPECT_EQ(info["graphBlobInfoV2"]["constSize"], 0);
    }
  }
}

TEST(Compile, SameBytesWhateverTheThreads) {
  const ModelFile file = open_model("models/stories-1m.gguf");
  const CompileTask task{.out = {},
                         .shards = 2,
                         .context = 64,
                         .recipe = parse_recipe("16a4w-block"),
                         .calibration = std::vector<int32_t>(70, 5)};
  const CompiledModel a(file, task, 1), b(file, task, 2);
  for (const char* name :
       {"forward_0.bin", "forward_1.bin", "forward_0_json.json", "forward_1_json.json", "manifest.json"}) {
    EXPECT_TRUE(bytes_at(a.path() + "/" + name) == bytes_at(b.path() + "/" + name)) << name;
    EXPECT_FALSE(bytes_at(a.path() + "/" + name).empty());
  }
}

TEST(Compile, RefusesWhatItCannotDo) {
  const TemporaryFile path;
  write_random_model({}, path.path());
  const ModelFile file = open_model(path.path());
  ThreadPool pool(1);
  const std::string out = path.path() + ".graphs";
  const auto refusal = [&](CompileTask task) {
    if (task.out.empty()) task.out = out;
    const std::string error = error_of([&] { compile_model(file, task, pool); });
    EXPECT_FALSE(std::filesystem::exists(out));
    return error;
  };
  EXPECT_THAT(refusal({.out = {}, .recipe = parse_recipe("16a4w")}), HasSubstr("--calibration"));
  EXPECT_THAT(refusal({.out = {}, .shards = 3, .recipe = {}}), HasSubstr("3 shards of 2 layers"));
  EXPECT_THAT(refusal({.out = {}, .context = 32, .prefill_length = 32, .recipe = {}}), HasSubstr("prefill length"));
  const std::atomic<bool> cancelled = true;
  EXPECT_THAT(refusal({.out = {}, .recipe = {}, .cancelled = &cancelled}), HasSubstr("interrupted"));
  std::filesystem::create_directory(out + "2");
  std::ofstream(out + "2/letter.txt") << "dear";
  EXPECT_THAT(refusal({.out = out + "2", .recipe = {}}), HasSubstr("no compiled model"));
  EXPECT_TRUE(std::filesystem::exists(out + "2/letter.txt"));
  std::filesystem::remove_all(out + "2");
  for (const auto& left : std::filesystem::directory_iterator(std::filesystem::path(out).parent_path())) {
    EXPECT_THAT(left.path().string(), ::testing::Not(HasSubstr(out + ".partial")));
  }
}

/// Files that may not grow any further, as on a disk that is full, wherever that happens: a line that says so, and
/// nothing is left; what was there before stays.
TEST(Compile, ReplacesACompiledModelThroughAnyNameAndNothingElse) {
  namespace fs = std::filesystem;
  const TemporaryFile path, folder_name("");
  write_random_model({}, path.path());
  const std::string folder = folder_name.path() + ".d", out = folder + "/model", link = folder + "/link";
  fs::create_directory(folder);
  const ModelFile file = open_model(path.path());
  ThreadPool pool(1);
  CompileTask task{.out = out, .shards = 2, .context = 32, .prefill_length = 8, .recipe = {}};
  (void)compile_model(file, task, pool);
  fs::permissions(out, fs::perms::owner_all);
  fs::create_directory_symlink("model", link);
  task.shards = 1;
  for (const std::string& name : {link, out + "/../model", out + "/"}) {
    task.out = name;
    (void)compile_model(file, task, pool);
  }
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_FALSE(fs::exists(out + "/forward_1.bin")) << "of the two shards before";
  EXPECT_EQ(fs::status(out).permissions(), fs::perms::owner_all);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 2) << "nothing partial";

  std::ofstream(out + "/thesis.txt") << "years of work";
  EXPECT_THAT(error_of([&] { compile_model(file, task, pool); }), testing::HasSubstr("other files too"));
  EXPECT_EQ(bytes_at(out + "/thesis.txt"), "years of work");
  const std::string claims = folder + "/claims";  // a manifest alone makes no compiled model
  fs::create_directory(claims);
  std::ofstream(claims + "/manifest.json") << "{}";
  task.out = claims;
  EXPECT_THAT(error_of([&] { compile_model(file, task, pool); }), testing::HasSubstr("no compiled model"));
  EXPECT_TRUE(fs::exists(claims + "/manifest.json"));
  fs::remove_all(folder);
}

TEST(Compile, NoRoomLeavesNothing) {
  namespace fs = std::filesystem;
  const TemporaryFile path, folder_name("");
  write_random_model({}, path.path());
  const ModelFile file = open_model(path.path());
  const std::string folder = folder_name.path() + ".d", out = folder + "/model";
  fs::create_directory(folder);
  ThreadPool pool(1);
  const CompileTask task{.out = out, .shards = 2, .context = 32, .prefill_length = 8, .recipe = {}};
  (void)compile_model(file, task, pool);
  const std::string before = bytes_at(out + "/manifest.json");
  const auto binary = fs::file_size(out + "/forward_0.bin");

  rlimit unlimited = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);  // then write() fails, as it does on a full disk
  for (const uintmax_t room : {uintmax_t{0}, uintmax_t{100}, binary / 2, binary - 1}) {
    rlimit limit = unlimited;
    limit.rlim_cur = room;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const std::string error = error_of([&] { compile_model(file, task, pool); });
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    EXPECT_THAT(error, HasSubstr("cannot write"));
    EXPECT_THAT(error, HasSubstr("forward_0.bin"));
    EXPECT_THAT(error, HasSubstr("make room on the disk"));
    EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1) << "the model of before, nothing else";
    EXPECT_EQ(bytes_at(out + "/manifest.json"), before);
  }
  std::signal(SIGXFSZ, ignored);
  fs::remove_all(folder);
}

TEST(Container, DamageIsRefused) {
  const TemporaryFile path;
  write_random_model({.dim = 16, .layers = 1, .heads = 2, .kv_heads = 1, .ffn_dim = 16, .vocabulary = 20}, path.path());
  const ModelFile file = open_model(path.path());
  const CompiledModel compiled(file, {.out = {}, .context = 8, .prefill_length = 4, .recipe = {}});
  const std::string whole = bytes_at(compiled.path() + "/forward_0.bin");
  const auto read = [](const std::string& bytes) {
    AlignedArray<std::byte> copy(bytes.size());
    std::memcpy(copy.data(), bytes.data(), bytes.size());
    return error_of([&] { read_container(copy.span(), "shard"); });
  };
  EXPECT_EQ(read(whole), "");
  std::mt19937 random = fresh_random();
  for (int i = 0; i < 200; ++i) {
    std::string damaged = whole;
    damaged[random() % damaged.size()] ^= static_cast<char>(1 + random() % 255);
    EXPECT_NE(read(damaged), "");
    EXPECT_NE(read(whole.substr(0, random() % whole.size())), "");
  }
}

/// Graphs that no compiler makes, each wrong in one way.
TEST(GraphCheck, RefusesWhatDoesNotFit) {
  const TemporaryFile path;
  write_random_model({}, path.path());
  const ModelFile file = open_model(path.path());
  ModelConfig config = read_config(file.metadata);
  check_weights(file, config);
  const ShardProgram good =
      build_shard(file, config, split_layers(2, 1)[0], {.context = 16, .prefill_length = 4, .recipe = {}}, {}).program;
  const auto node = [](Graph& g, Operator op) -> GraphNode& {
    return *std::find_if(g.nodes.begin(), g.nodes.end(), [&](const GraphNode& n) { return n.op == op; });
  };
  const std::pair<const char*, std::function<void(Graph&)>> faults[] = {
      {"out of range", [&](Graph& g) { g.nodes[3].inputs[0] = 100000; }},
      {"before it is made", [&](Graph& g) { g.nodes[0].inputs[0] = g.nodes.back().output; }},
      {"made twice", [&](Graph& g) { g.nodes[4].output = g.nodes[3].output; }},
      {"does not fit the output", [&](Graph& g) { g.tensors[node(g, Operator::linear).output].dims.back() += 1; }},
      {"no order", [&](Graph& g) { node(g, Operator::permute).order[0] = node(g, Operator::permute).order[1]; }},
      {"do not add up", [&](Graph& g) { node(g, Operator::concat).inputs.pop_back(); }},
      {"no part of a head", [&](Graph& g) { node(g, Operator::rope).width = 1000; }},
      {"inner dimensions",
       [&](Graph& g) { std::swap(node(g, Operator::matmul).inputs[0], node(g, Operator::matmul).inputs[1]); }},
      {"mixes floats",
       [&](Graph& g) {
         g.tensors[node(g, Operator::softmax).output] = {.name = "p",
                                                         .type = NumberType::u16,
                                                         .dims = g.tensors[node(g, Operator::softmax).output].dims,
                                                         .encoding = {1, 0}};
       }},
      {"no elements", [&](Graph& g) { g.tensors[0].dims[0] = 0; }},
      {"is too large",
       [&](Graph& g) {
         g.tensors[0].dims = {1u << 31, 1u << 31};
       }},
      {"has no type", [&](Graph& g) { g.tensors[0].type = static_cast<NumberType>(9); }},
      {"no such operator", [&](Graph& g) { g.nodes[2].op = static_cast<Operator>(77); }},
      {"is not made", [&](Graph& g) { g.outputs[0] = g.inputs[0]; }},
  };
  EXPECT_EQ(error_of([&] { check(good); }), "");
  for (const auto& [what, fault] : faults) {
    ShardProgram bad = good;
    fault(bad.graphs[0]);
    EXPECT_THAT(error_of([&] { check(bad); }), HasSubstr(what));
  }
  EXPECT_THAT(to_text(good), HasSubstr("= softmax(blk.0.masked)"));
}

}  // namespace
}  // namespace contexture
