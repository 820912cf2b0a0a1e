#include "backends/static_graph/context_manifest.h"

#include <xxhash.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "backends/static_graph/graph_backend.h"
#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"

namespace contexture {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kVersion = 1;
constexpr const char* kFormat = "contexture static graphs";
constexpr const char* kMend = "compile the model again";

/// Reads members of an object and says where one is missing.
class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("{}: expected an object; {}", where_, kMend);
  }

  const std::string& where() const { return where_; }

  const Json& member(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail("{} has no {}; {}", where_, key, kMend);
    return *found;
  }
  bool has(const char* key) const { return object_.contains(key); }
  std::string text(const char* key) const {
    const Json& value = member(key);
    if (!value.is_string()) fail("{}, {}: expected a text; {}", where_, key, kMend);
    return value.get<std::string>();
  }
  uint64_t number(const char* key) const {
    const Json& value = member(key);
    if (!value.is_number_unsigned()) fail("{}, {}: expected a whole number; {}", where_, key, kMend);
    return value.get<uint64_t>();
  }
  const Json& list(const char* key) const {
    const Json& value = member(key);
    if (!value.is_array()) fail("{}, {}: expected a list; {}", where_, key, kMend);
    return value;
  }
  Reader object(const char* key) const { return {member(key), fmt::format("{}, {}", where_, key)}; }

 private:
  const Json& object_;
  std::string where_;
};

nlohmann::ordered_json file_json(const ContextManifest::File& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.xxh3}};
}

ContextManifest::File read_file(const Reader& reader) {
  ContextManifest::File file = {
      .name = reader.text("name"), .bytes = reader.number("bytes"), .xxh3 = reader.text("xxh3")};
  if (file.name.empty() || file.name.starts_with('.') || file.name.find('/') != file.name.npos ||
      file.name.find('\0') != file.name.npos) {
    fail("{}: {} is no name of a file beside the manifest; {}", reader.where(), printable(file.name), kMend);
  }
  return file;
}

std::string_view data_type(uint32_t type) {
  switch (type) {
    case CXG_FLOAT_32:
      return "QNN_DATATYPE_FLOAT_32";
    case CXG_INT_32:
      return "QNN_DATATYPE_INT_32";
    case CXG_UFIXED_8:
      return "QNN_DATATYPE_UFIXED_POINT_8";
    case CXG_UFIXED_16:
      return "QNN_DATATYPE_UFIXED_POINT_16";
  }
  return "?";
}

void expect(const std::string& where, std::string_view what, const std::string& expected, const std::string& found) {
  if (expected == found) return;
  fail("{}: {} is {} in the binary and {} here; {}", where, what, printable(expected), printable(found), kMend);
}

void check_tensor(const Json& json, const std::string& where, const cxg_tensor& tensor) {
  const Reader outer(json, where);
  const Reader info = outer.object("info");
  const std::string name = fmt::format("{}, {}", where, printable(tensor.name));
  expect(name, "its name", tensor.name, info.text("name"));
  expect(name, "its id", std::to_string(tensor.id), std::to_string(info.number("id")));
  expect(name, "its type", std::string(data_type(tensor.type)), info.text("dataType"));
  const Json& dimensions = info.list("dimensions");
  expect(name, "its shape", shape_text(tensor), dimensions.dump());
  if (tensor.scale == 0) return;
  const Reader encoding = info.object("quantizeParams").object("scaleOffset");
  const Json &scale = encoding.member("scale"), &offset = encoding.member("offset");
  if (!scale.is_number() || !offset.is_number_integer()) fail("{}: its encoding is no numbers; {}", name, kMend);
  const double found = scale.get<double>();
  const bool is_float = std::fabs(found) <= std::numeric_limits<float>::max();
  if (!is_float || static_cast<float>(found) != tensor.scale || offset.get<int64_t>() != tensor.offset) {
    fail("{}: its scale and offset are {} and {} in the binary, {} and {} here; {}", name, tensor.scale, tensor.offset,
         found, offset.get<int64_t>(), kMend);
  }
}

}  // namespace

std::string shard_binary_name(size_t shard) {
  return fmt::format("forward_{}.bin", shard);
}
std::string shard_json_name(size_t shard) {
  return fmt::format("forward_{}_json.json", shard);
}

ContextManifest::File identify_bytes(const std::string& name, std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {.name = name, .bytes = bytes.size(), .xxh3 = fmt::format("{:016x}{:016x}", hash.high64, hash.low64)};
}

ContextManifest::File identify_file(const std::string& folder, const std::string& name) {
  return identify_bytes(name, MappedFile(folder + "/" + name).bytes());
}

std::string manifest_text(const ContextManifest& m) {
  nlohmann::ordered_json json = {{"format", kFormat},
                                 {"version", kVersion},
                                 {"model", m.model},
                                 {"mode", m.mode},
                                 {"recipe", m.recipe},
                                 {"context", m.context},
                                 {"prefill_length", m.prefill_length},
                                 {"kv_bits", m.kv_bits},
                                 {"kv_layout", m.kv_layout},
                                 {"layers", m.layers},
                                 {"shards", nlohmann::ordered_json::array()}};
  if (!m.tokenizer.name.empty()) json["tokenizer"] = file_json(m.tokenizer);
  for (const ContextManifest::Shard& shard : m.shards) {
    json["shards"].push_back({{"first_layer", shard.first_layer},
                              {"layers", shard.layers},
                              {"binary", file_json(shard.binary)},
                              {"json", file_json(shard.json)}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

ContextManifest parse_manifest(std::string_view text, const std::string& path) {
  const Json json = parse_json(text, path, kMend);
  const Reader reader(json, path);
  if (!reader.has("format") || reader.text("format") != kFormat) {
    fail("{}: expected \"format\": \"{}\"; is this a folder that compile wrote?", path, kFormat);
  }
  if (reader.number("version") != kVersion) {
    fail("{}: expected version {}, found {}; {}", path, kVersion, reader.number("version"), kMend);
  }
  ContextManifest m = {.model = reader.text("model"),
                       .mode = reader.text("mode"),
                       .recipe = reader.text("recipe"),
                       .kv_layout = reader.text("kv_layout"),
                       .context = reader.number("context"),
                       .prefill_length = reader.number("prefill_length"),
                       .kv_bits = reader.number("kv_bits"),
                       .layers = reader.number("layers"),
                       .tokenizer = {},
                       .shards = {}};
  if (reader.has("tokenizer")) m.tokenizer = read_file(reader.object("tokenizer"));
  uint64_t layer = 0;
  for (const Json& each : reader.list("shards")) {
    const Reader shard(each, fmt::format("{}, shard {}", path, m.shards.size()));
    m.shards.push_back({.binary = read_file(shard.object("binary")),
                        .json = read_file(shard.object("json")),
                        .first_layer = shard.number("first_layer"),
                        .layers = shard.number("layers")});
    const ContextManifest::Shard& read = m.shards.back();
    if (read.first_layer != layer || read.layers == 0 || read.layers > m.layers - layer) {
      fail("{}: expected layers from {}, found {} from {}; {}", shard.where(), layer, read.layers, read.first_layer,
           kMend);
    }
    layer += read.layers;
  }
  if (m.shards.empty() || layer != m.layers) {
    fail("{}: expected {} layers in its shards, found {}; {}", path, m.layers, layer, kMend);
  }
  return m;
}

void check_context_json(std::string_view text, const std::string& path, std::span<const cxg_graph* const> graphs) {
  const Json json = parse_json(text, path, kMend);
  const Json& list = Reader(json, path).object("info").list("graphs");
  expect(path, "the number of graphs", std::to_string(graphs.size()), std::to_string(list.size()));
  for (size_t g = 0; g < graphs.size(); ++g) {
    const Reader graph = Reader(list[g], fmt::format("{}, graph {}", path, g)).object("info");
    expect(graph.where(), "its name", graphs[g]->name, graph.text("graphName"));
    for (const bool is_output : {false, true}) {
      const std::span<const cxg_tensor> tensors = is_output ? std::span(graphs[g]->outputs, graphs[g]->output_count)
                                                            : std::span(graphs[g]->inputs, graphs[g]->input_count);
      const Json& found = graph.list(is_output ? "graphOutputs" : "graphInputs");
      const std::string where = fmt::format("{}, {}", path, graphs[g]->name);
      expect(where, is_output ? "the number of outputs" : "the number of inputs", std::to_string(tensors.size()),
             std::to_string(found.size()));
      for (size_t i = 0; i < tensors.size(); ++i) check_tensor(found[i], where, tensors[i]);
    }
  }
}

}  // namespace contexture
