#include <map>

#include "backends/static_graph/container.h"
#include "backends/static_graph/context_directory.h"
#include "base/error.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

Json tokenizer_info(const Tokenizer& tokenizer) {
  const Vocabulary& v = tokenizer.vocabulary();
  Json j;
  const bool byte_level = v.algorithm == Vocabulary::Algorithm::byte_bpe;
  j["algorithm"] = byte_level ? "byte-level BPE" : "SentencePiece BPE";
  if (byte_level) j["pretokenizer"] = v.pretokenizer;
  j["tokens"] = tokenizer.size();
  if (v.begin) j["begin"] = *v.begin;
  j["end"] = v.end_tokens;
  j["add_begin"] = v.add_begin;
  return j;
}

Json shape_info(const ModelConfig& c) {
  Json j = {{"family", c.family},
            {"layers", c.layers},
            {"embedding", c.dim},
            {"feed_forward", c.ffn_dim},
            {"heads", c.heads},
            {"kv_heads", c.kv_heads},
            {"head_dim", c.head_dim},
            {"context", c.context},
            {"rope_base", c.rope().base},
            {"rope_pairs", c.rope().style == RopeStyle::interleaved ? "interleaved" : "halves"}};
  if (c.experts > 0) j["experts"] = fmt::format("{} of {}", c.experts_used, c.experts);
  for (const LayerConfig& layer : c.each_layer) {
    if (layer.window > 0) j["window"] = layer.window;
  }
  return j;
}

struct Info {
  ModelFlags model;
  std::string directory;  // that compile wrote, instead of a model
  bool graphs = false;

  void run() const {
    if (!directory.empty()) return describe_directory();
    std::string no_tokenizer;
    const OpenedModel opened = open(no_tokenizer);
    const ModelFile& file = opened.file;
    Json j;
    j["path"] = valid_utf8(file.path);
    j["format"] = file.kind;
    if (file.metadata.has("general.name")) j["name"] = valid_utf8(file.metadata.get_string("general.name"));
    j["architecture"] = valid_utf8(file.metadata.get_string("general.architecture", "?"));
    if (!file.tensors.empty() || file.absent) add_model(file, j);
    if (file.absent) j["weights_absent"] = valid_utf8(file.absent->why);
    j["tensors"] = file.tensors.size();
    if (opened.tokenizer) j["tokenizer"] = tokenizer_info(*opened.tokenizer);
    if (!no_tokenizer.empty()) j["cannot_tokenize"] = valid_utf8(no_tokenizer);
    if (model.json) {
      print_json(j);
    } else {
      print(j, 0);
    }
  }

  /// A model whose tokenizer cannot be read is described all the same, with the reason.
  OpenedModel open(std::string& no_tokenizer) const {
    try {
      return model.open({.weights = false});
    } catch (const Error& e) {
      OpenedModel opened{open_model(model.model, {.weights = false}), std::nullopt};
      no_tokenizer = e.what();
      return opened;
    }
  }

  void describe_directory() const {
    const ContextDirectory folder(directory);
    Json j = Json::parse(manifest_text(folder.manifest()));
    j["shards"] = Json::object();
    const std::vector<ShardBytes> shards = folder.shards();
    for (size_t i = 0; i < shards.size(); ++i) {
      const auto& [file, bytes] = shards[i];
      const ShardProgram program = read_container(bytes, file);
      if (graphs) {
        fmt::print("{}{}\n{}", i ? "\n" : "", file, to_text(program));
        continue;
      }
      const ContextManifest::Shard& shard = folder.manifest().shards[i];
      Json& about = j["shards"][file];
      about = {{"bytes", bytes.size()}, {"first_layer", shard.first_layer}, {"layers", shard.layers}};
      for (const Graph& graph : program.graphs) {
        about[graph.name] = fmt::format("{} inputs, {} outputs, {} nodes", graph.inputs.size(), graph.outputs.size(),
                                        graph.nodes.size());
      }
    }
    if (graphs) return;
    if (model.json) {
      print_json(j);
    } else {
      print(j, 0);
    }
  }

  /// A model that this program cannot run is described as far as it goes, with the reason.
  static void add_model(const ModelFile& file, Json& j) {
    try {
      ModelConfig config = read_config(file.metadata);
      const size_t bytes = check_weights(file, config).stored;
      j.update(shape_info(config));
      j["vocabulary"] = config.vocabulary;
      j["weights_bytes"] = bytes;
    } catch (const Error& e) {
      j["cannot_run"] = valid_utf8(e.what());
    }
    if (file.absent) return;  // what is here is not all
    j["parameters"] = parameters(file);
    j["tensor_formats"] = formats(file);
  }

  static size_t parameters(const ModelFile& file) {
    size_t count = 0;
    for (const StoredTensor& t : file.tensors) {
      size_t elements = 1;
      for (const int64_t n : t.shape) elements *= static_cast<size_t>(n);
      count += elements;
    }
    return count;
  }

  static Json formats(const ModelFile& file) {
    std::map<std::string, size_t> counts;
    for (const StoredTensor& t : file.tensors) ++counts[std::string(name(t.format))];
    return counts;
  }

  static void print(const Json& object, int indent) {
    for (const auto& [key, value] : object.items()) {
      if (value.is_object()) {
        fmt::print("{:{}}{}\n", "", indent, key);
        print(value, indent + 2);
        continue;
      }
      std::string text = value.is_string() ? value.get<std::string>() : value.dump();
      if (key == "weights_bytes") text = fmt::format("{} ({})", value.dump(), human_bytes(value.get<size_t>()));
      fmt::print("{:{}}{:<{}} {}\n", "", indent, key, 16 - indent, printable(text, 400));
    }
  }
};

}  // namespace

void add_info(CLI::App& app) {
  CLI::App* command = app.add_subcommand("info", "what a model file is: family, shapes, formats, tokenizer, context");
  auto self = std::make_shared<Info>();
  self->model.add_to(*command);
  CLI::Option* const folder = command->add_option("--context-dir", self->directory,
                                                  "describes the graphs that `compile` wrote to DIR, not a model file");
  folder->option_text("DIR")->excludes("--model");
  command->add_flag("--graphs", self->graphs, "prints every constant, input, output and node of them")->needs(folder);
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
