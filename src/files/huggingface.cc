#include "files/huggingface.h"

#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "files/folder.h"
#include "files/huggingface_family.h"
#include "files/safetensors.h"

namespace contexture {
namespace {

namespace fs = std::filesystem;

constexpr size_t largest_template = 1 << 20;  // bytes; real ones have some ten thousand
constexpr int64_t widest_norm = 1 << 20;      // elements; real ones have a few thousand

/// A folder's name; of a snapshot in the hub's cache, models--ORGANISATION--NAME/snapshots/HASH, the model's.
std::string model_name(const fs::path& folder) {
  fs::path full = fs::absolute(folder).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  if (full.parent_path().filename() != "snapshots") return full.filename().string();
  const std::string entry = full.parent_path().parent_path().filename().string();
  const size_t dashes = entry.rfind("--");
  return dashes == entry.npos ? entry : entry.substr(dashes + 2);
}

/// The files of weights and what each is to give: all its tensors, or those that the index says it holds.
class Weights {
 public:
  Weights(ModelFile& model, const ModelUse& use) : model_(model), needed_(use.weights) {}

  void add_file(const fs::path& path) {
    for (auto& [name, tensor] : open(path)) add(name, {std::move(tensor), path.string()});
    parts_ = 1;
  }

  /// Reads model.safetensors.index.json: {"weight_map": {"NAME": "FILE", …}, …}.
  void add_sharded(const fs::path& index_path) {
    const JsonObject map = read_json_file(index_path.string()).get_object("weight_map");
    std::map<std::string, SafeTensors> shards;
    std::set<std::string> files;
    for (const auto& [name, file] : map.value().items()) {
      if (!file.is_string()) map.refuse(name, "the name of a file");
      const std::string shard = file.get<std::string>();
      if (shard.empty() || shard == "." || shard == ".." ||
          shard.find_first_of(std::string_view("/\\\0", 3)) != shard.npos) {
        fail("{}: weight_map names the file {}, which is no plain name; download the index again",
             printable(index_path.string(), 400), printable(shard));
      }
      const fs::path path = index_path.parent_path() / shard;
      files.insert(shard);
      if (is_absent(path)) {
        absent_.insert(name);
        continue;
      }
      if (!shards.contains(shard)) shards.emplace(shard, open(path));
      const auto found = shards.at(shard).find(name);
      if (found == shards.at(shard).end()) {
        fail("{}: tensor {} is missing, which the index says is here; download the file again",
             printable(path.string(), 400), printable(name));
      }
      add(name, {found->second, path.string()});
    }
    parts_ = files.size();
  }

  /// The file is not here, and need not be.
  bool is_absent(const fs::path& path) {
    if (needed_ || (is_file(path) && !is_git_lfs_pointer(path.string()))) return false;
    if (missing_.empty())
      missing_ = path.filename().string() + (is_file(path) ? " is a Git LFS pointer" : " is missing");
    return true;
  }
  const std::string& missing() const { return missing_; }  ///< what is not here; empty where all is

  bool has(const std::string& name) const { return tensors_.contains(name) || absent_.contains(name); }
  size_t parts() const { return parts_; }

  /// Hands them to the model under GGUF's names.
  void present(const HuggingFaceFamily& family, bool tied) {
    for (const auto& [name, tensor] : tensors_) {
      std::string gguf = gguf_tensor_name(family, name, tied, tensor.file);
      if (gguf.empty()) continue;
      const std::string origin = fmt::format("{}: tensor {}", printable(tensor.file, 400), printable(name));
      StoredTensor stored = to_stored(tensor.tensor, std::move(gguf), origin);
      if (family.norms_plus_one && stored.name.ends_with("norm.weight")) {
        add_plus_one(stored, origin);
      } else {
        model_.add(std::move(stored));
      }
    }
  }

  /// The names of those that are not here, in GGUF's vocabulary.
  std::set<std::string> absent_names(const HuggingFaceFamily& family, bool tied) const {
    std::set<std::string> names;
    for (const std::string& name : absent_) names.insert(gguf_tensor_name(family, name, tied, model_.path));
    names.erase("");
    return names;
  }

 private:
  struct Entry {
    SafeTensor tensor;
    std::string file;
  };

  SafeTensors open(const fs::path& path) {
    model_.maps.emplace_back(path.string());
    return read_safetensors(model_.maps.back().bytes(), path.string());
  }

  void add(const std::string& name, Entry entry) { tensors_.emplace(name, std::move(entry)); }

  /// Tensors of a file do not overlap, so all copies together take no more than twice the file's bytes.
  void add_plus_one(const StoredTensor& norm, const std::string& origin) {
    if (norm.shape.size() != 1 || norm.shape[0] > widest_norm) {
      fail("{} is a norm, but no vector of up to {} elements; download the file again", origin, widest_norm);
    }
    std::vector<float> values(static_cast<size_t>(norm.shape[0]));
    info(norm.format).decode(norm.data.data(), values.data(), values.size());
    for (float& value : values) value += 1;
    model_.add_made(norm.name, std::move(values));
  }

  ModelFile& model_;
  bool needed_;
  std::map<std::string, Entry> tensors_;
  std::set<std::string> absent_;
  std::string missing_;
  size_t parts_ = 0;  // files, where they or the index are here
};

void read_weights(const fs::path& folder, const fs::path& given, Weights& weights) {
  const fs::path index = folder / "model.safetensors.index.json", whole = folder / "model.safetensors";
  // A file of weights that was named itself is what is meant, but for a shard, which stands for all of them.
  const bool named = given.extension() == ".safetensors" && is_file(given);
  const bool shard = given.filename().string().find("-of-") != std::string::npos;
  const auto add_file = [&](const fs::path& file) {
    if (!weights.is_absent(file)) weights.add_file(file);
  };
  if (named && !(shard && is_file(index))) return add_file(given);
  if (given.filename() != index.filename() && is_file(whole)) return add_file(whole);
  if (is_file(index)) return weights.add_sharded(index);
  if (weights.is_absent(whole)) return;
  const bool pickled = is_file(folder / "pytorch_model.bin") || is_file(folder / "pytorch_model.bin.index.json");
  fail("{}: no model.safetensors and no model.safetensors.index.json{}", printable(folder.string(), 400),
       pickled ? ", only pytorch_model.bin; save the model with safe_serialization" : "; download the whole folder");
}

/// What weights are in that are not here: as the configuration says, or what takes most.
AbsentWeights describe_absent(const JsonObject& config, const std::string& missing, std::set<std::string> names) {
  struct Named {
    std::string_view name;
    Format format;
  };
  constexpr Named types[] = {{"float32", Format::f32}, {"float16", Format::f16}, {"bfloat16", Format::bf16}};
  std::string said = config.get_string("torch_dtype", config.get_string("dtype", ""));
  if (said.empty()) said = config.get_object("text_config").get_string("torch_dtype", "");
  std::string_view name = said;
  take_prefix(name, "torch.");
  for (const Named& type : types) {
    if (type.name != name) continue;
    return {type.format, std::move(names),
            fmt::format("{}; what is not here is taken to be in {}, as config.json says", printable(missing), name)};
  }
  return {Format::f32, std::move(names),
          fmt::format("{}; config.json does not say what it is in: taken to be float32, which takes most",
                      printable(missing))};
}

JsonObject read_if_there(const fs::path& path) {
  return is_file(path) ? read_json_file(path.string()) : JsonObject();
}

std::vector<int64_t> token_ids(const JsonObject& object, const char* key) {
  constexpr int64_t largest = (int64_t{1} << 31) - 1;
  constexpr std::string_view expected = "a token's number or a list of them";
  const nlohmann::json* value = object.find(key);
  if (!value) return {};
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  std::vector<int64_t> ids;
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > largest) object.refuse(key, expected);
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

}  // namespace

void read_huggingface_tokens(const JsonObject& config, const JsonObject& generation, Metadata& metadata) {
  const auto ids_of = [&](const char* key) { return token_ids(generation.has(key) ? generation : config, key); };
  const std::vector<int64_t> begin = ids_of("bos_token_id"), end = ids_of("eos_token_id");
  if (!begin.empty()) metadata.set_int("tokenizer.ggml.bos_token_id", begin[0]);
  if (!end.empty()) {
    metadata.set_int("tokenizer.ggml.eos_token_id", end[0]);
    metadata.set_ints("tokenizer.end_token_ids", end);
  }
  // Where do_sample is false the numbers are leftovers: the makers advise to take the likeliest token.
  const bool greedy = generation.has("do_sample") && !generation.get_bool("do_sample", true);
  if (greedy) metadata.set_float("general.sampling.temp", 0);
  if (greedy) return;
  if (generation.has("temperature")) metadata.set_float("general.sampling.temp", generation.get_number("temperature"));
  if (generation.has("top_k")) metadata.set_int("general.sampling.top_k", generation.get_int("top_k", 0, INT32_MAX));
  if (generation.has("top_p")) metadata.set_float("general.sampling.top_p", generation.get_number("top_p"));
}

void read_huggingface_tokenizer_config(const JsonObject& tokenizer, Metadata& metadata) {
  if (tokenizer.has("add_bos_token")) {
    metadata.set_bool("tokenizer.ggml.add_bos_token", tokenizer.get_bool("add_bos_token", false));
  }
  if (tokenizer.has("add_eos_token")) {
    metadata.set_bool("tokenizer.ggml.add_eos_token", tokenizer.get_bool("add_eos_token", false));
  }
  for (const char* token : {"bos_token", "eos_token"}) {
    const nlohmann::json* given = tokenizer.find(token);  // "<s>", or {"content": "<s>", ...}
    if (given && given->is_object()) {
      metadata.set_string(fmt::format("tokenizer.{}", token),
                          JsonObject(*given, tokenizer.file()).get_string("content", ""));
    } else if (given) {
      metadata.set_string(fmt::format("tokenizer.{}", token), tokenizer.get_string(token, ""));
    }
  }
  const nlohmann::json* given = tokenizer.find("chat_template");
  if (!given) return;
  if (!given->is_array()) {
    return metadata.set_string("tokenizer.chat_template", tokenizer.get_string("chat_template", ""));
  }
  std::string chosen;
  for (const nlohmann::json& entry : *given) {
    const JsonObject named(entry, tokenizer.file());
    const bool usual = named.get_string("name", "") == "default";
    if (usual || chosen.empty()) chosen = named.get_string("template", "");
    if (usual) break;
  }
  if (!chosen.empty()) metadata.set_string("tokenizer.chat_template", chosen);
}

bool is_huggingface_folder(const std::string& path) {
  const fs::path config = folder_of(path) / "config.json";
  return is_file(config);
}

ModelFile open_huggingface(const std::string& path, const ModelUse& use) {
  const fs::path folder = folder_of(path);
  const std::string config_path = (folder / "config.json").string();
  if (!is_file(config_path)) {
    fail("{}: config.json is missing; a Hugging Face model needs it beside its weights",
         printable(folder.string(), 400));
  }
  const JsonObject config = read_json_file(config_path);
  const HuggingFaceFamily& family = huggingface_family(config);

  ModelFile model;
  model.path = config_path;
  model.kind = "Hugging Face (safetensors)";
  model.metadata.set_origin(printable(config_path, 400));
  model.metadata.set_string("general.name", model_name(folder));
  read_huggingface_config(config, model);
  read_huggingface_tokens(config, read_if_there(folder / "generation_config.json"), model.metadata);
  read_huggingface_tokenizer_config(read_if_there(folder / "tokenizer_config.json"), model.metadata);
  if (const fs::path file = folder / "chat_template.json"; is_file(file)) {
    read_huggingface_tokenizer_config(read_json_file(file.string()), model.metadata);
  }
  if (const fs::path file = folder / "chat_template.jinja"; is_file(file)) {
    const MappedFile text(file.string());
    if (text.bytes().size() > largest_template)
      fail("{}: too large for a chat template", printable(file.string(), 400));
    model.metadata.set_string("tokenizer.chat_template",
                              {reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()});
  }

  Weights weights(model, use);
  read_weights(folder, path, weights);
  if (weights.parts() > 1) model.kind += fmt::format(", {} parts", weights.parts());
  // Unless it is said, a model shares its embedding where its family does, and where it stores no head.
  const bool has_head = weights.has("lm_head.weight") || weights.has("language_model.lm_head.weight");
  const bool unlisted = !weights.missing().empty() && weights.parts() == 0;
  const bool tied = config.get_bool("tie_word_embeddings", family.tied || !(has_head || unlisted));
  if (!tied && !has_head && !unlisted) {
    fail("{}: lm_head.weight is missing, and tie_word_embeddings is false; download the whole folder",
         printable(folder.string(), 400));
  }
  if (!weights.missing().empty()) {
    std::set<std::string> names = weights.absent_names(family, tied);
    if (unlisted && !tied) names.insert("output.weight");
    model.absent = describe_absent(config, weights.missing(), std::move(names));
  }
  weights.present(family, tied);
  return model;
}

}  // namespace contexture
