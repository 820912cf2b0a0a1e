#include "files/meta.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "files/computing_fields.h"
#include "files/folder.h"

namespace contexture {
namespace {

namespace fs = std::filesystem;

// No known model comes near these; beyond them a number is damage and not a size.
constexpr int64_t largest_value = int64_t{1} << 31;

// ---- names ----

constexpr TensorName meta_outside_layers[] = {{"tok_embeddings.weight", "token_embd.weight"},
                                              {"norm.weight", "output_norm.weight"},
                                              {"output.weight", "output.weight"}};

constexpr TensorName meta_of_layer[] = {
    {"attention_norm.weight", "attn_norm.weight"}, {"attention.wq.weight", "attn_q.weight"},
    {"attention.wk.weight", "attn_k.weight"},      {"attention.wv.weight", "attn_v.weight"},
    {"attention.wo.weight", "attn_output.weight"}, {"ffn_norm.weight", "ffn_norm.weight"},
    {"feed_forward.w1.weight", "ffn_gate.weight"}, {"feed_forward.w2.weight", "ffn_down.weight"},
    {"feed_forward.w3.weight", "ffn_up.weight"},
};

/// Tables that are computed, not learned.
constexpr std::string_view tables[] = {"rope.freqs", "freqs_cis", "freqs_cos", "freqs_sin", "mask"};

bool is_table(std::string_view name) {
  return std::any_of(std::begin(tables), std::end(tables), [name](std::string_view table) {
    return name == table || (name.ends_with(table) && name[name.size() - table.size() - 1] == '.');
  });
}

/// A name of a layer's tensor, taken apart; `layer` is -1 for another.
struct LayerName {
  int64_t layer = -1;
  std::string_view rest;

  explicit LayerName(std::string_view name) {
    if (!take_prefix(name, "layers.")) return;
    const std::string_view number = take_number(name);
    if (number.empty()) return;
    layer = std::stoi(std::string(number));
    rest = name;
  }
};

/// Empty for a tensor that is not needed. Throws Error for one that is not known.
std::string gguf_name(const std::string& name, const std::string& path) {
  if (is_table(name)) return "";
  if (const LayerName of(name); of.layer >= 0) {
    if (const std::string_view found = look_up(meta_of_layer, of.rest); !found.empty()) {
      return fmt::format("blk.{}.{}", of.layer, found);
    }
  }
  if (const std::string_view found = look_up(meta_outside_layers, name); !found.empty()) return std::string(found);
  fail("{}: tensor {} is not part of a Llama as Meta names one; ignoring it would give wrong answers", path,
       printable(name));
}

// ---- numbers ----

/// What the tensors say themselves.
struct Shapes {
  int64_t dim, vocabulary, ffn_dim, layers = 0;

  Shapes(const TorchCheckpoint& checkpoint, const std::string& path) {
    const auto matrix = [&](const char* name) -> const std::vector<int64_t>& {
      const auto found = checkpoint.tensors().find(name);
      if (found == checkpoint.tensors().end() || found->second.shape.size() != 2) {
        fail("{}: no matrix {}; this is no Llama checkpoint of Meta's kind", path, name);
      }
      for (const int64_t dimension : found->second.shape) {
        if (dimension < 1 || dimension > largest_value) {
          fail("{}: {} has a dimension of size {}; download the file again", path, name, dimension);
        }
      }
      return found->second.shape;
    };
    vocabulary = matrix("tok_embeddings.weight")[0];
    dim = matrix("tok_embeddings.weight")[1];
    ffn_dim = matrix("layers.0.feed_forward.w1.weight")[0];
    for (const auto& [name, tensor] : checkpoint.tensors()) layers = std::max(layers, LayerName(name).layer + 1);
  }
};

/// Meta's rule: two thirds of 4 · dim, times a factor, up to the next multiple.
int64_t ffn_dim_of(int64_t dim, double factor, int64_t multiple) {
  const int64_t two_thirds = 2 * (4 * dim) / 3;
  const auto hidden = static_cast<int64_t>(static_cast<double>(two_thirds) * factor);
  return (hidden + multiple - 1) / multiple * multiple;
}

void check_agreement(const JsonObject& params, const char* key, int64_t in_tensors) {
  const int64_t said = params.get_int(key, -1, largest_value, in_tensors);
  const bool unsaid = said == -1 && std::string_view(key) == "vocab_size";  // Meta's files leave it to the tokenizer
  if (said == in_tensors || unsaid) return;
  fail("{}: {} is {}, but the tensors have {}; it belongs to another checkpoint", printable(params.file(), 400), key,
       said, in_tensors);
}

void check_ffn_dim(const JsonObject& params, const Shapes& shapes) {
  if (params.has("hidden_dim")) return check_agreement(params, "hidden_dim", shapes.ffn_dim);
  if (!params.has("multiple_of")) return;
  const double factor = params.get_number("ffn_dim_multiplier", 1);
  const int64_t multiple = params.get_int("multiple_of", 1, largest_value);
  if (!(factor > 0 && factor < 1000)) params.refuse("ffn_dim_multiplier", "a number above 0");
  const int64_t expected = ffn_dim_of(shapes.dim, factor, multiple);
  if (expected != shapes.ffn_dim) {
    fail(
        "{}: multiple_of and ffn_dim_multiplier give a feed-forward of {}, but layers.0.feed_forward.w1 has {} rows; "
        "they belong to another checkpoint",
        printable(params.file(), 400), expected, shapes.ffn_dim);
  }
}

/// Tokens that the model was made for, where the files do not say it: the numbers that tell Meta's models apart.
int64_t usual_context(const JsonObject& params) {
  if (params.get_bool("use_scaled_rope", false)) return 131072;         // Llama 3.1
  if (params.get_number("rope_theta", 10000) == 500000) return 8192;    // Llama 3
  if (params.get_number("rope_theta", 10000) == 1000000) return 16384;  // Code Llama
  return params.get_number("norm_eps", 1e-5) == 1e-5 ? 4096 : 2048;     // Llama 2, Llama 1
}

/// Fields of params.json, of Mistral's and ExecuTorch's too, that nothing here carries out.
constexpr ComputingField meta_fields[] = {
    {"act_fn", R"(["silu", "SILU"])"},
    {"attention_multiplier", "[]"},
    {"attention_qkv_bias", "[false]"},
    {"attn_logit_softcapping", "[0]"},
    {"embedding_scale_factor", "[1]"},
    {"final_logit_softcapping", "[0]"},
    {"local_rope_theta", "[]"},
    {"logits_scaling", "[1]"},
    {"lora_args", "[]"},
    {"moe", "[false]"},
    {"num_experts", "[0]"},
    {"partial_rotary_factor", "[1]"},
    {"quantization_args", "[]"},
    {"residual_multiplier", "[1]"},
    {"use_hf_rope", "[false]"},  // which has other pairs of channels
    {"use_qk_norm", "[false]"},
};

void write_metadata(const JsonObject& params, const Shapes& shapes, Metadata& m) {
  refuse_uncarried(meta_fields, "Llama", params);
  check_agreement(params, "dim", shapes.dim);
  check_agreement(params, "n_layers", shapes.layers);
  check_agreement(params, "vocab_size", shapes.vocabulary);
  check_ffn_dim(params, shapes);
  if (!params.has("n_heads")) {
    fail("{}: n_heads is missing, which the tensors do not tell; put the model's params.json beside the checkpoint",
         printable(params.file(), 400));
  }
  const int64_t heads = params.get_int("n_heads", 1, largest_value);
  m.set_string("general.architecture", "llama");
  m.set_int("llama.block_count", shapes.layers);
  m.set_int("llama.embedding_length", shapes.dim);
  m.set_int("llama.feed_forward_length", shapes.ffn_dim);
  m.set_int("llama.vocab_size", shapes.vocabulary);
  m.set_int("llama.attention.head_count", heads);
  m.set_int("llama.attention.head_count_kv", params.get_int("n_kv_heads", 1, largest_value, heads));
  m.set_int("llama.context_length", params.get_int("max_seq_len", 1, largest_value, usual_context(params)));
  const int64_t head_dim = params.get_int("head_dim", 1, largest_value, shapes.dim / heads);
  m.set_int("llama.rope.dimension_count", head_dim);
  if (params.has("head_dim")) {
    m.set_int("llama.attention.key_length", head_dim);
    m.set_int("llama.attention.value_length", head_dim);
  }
  m.set_float("llama.attention.layer_norm_rms_epsilon", params.get_number("norm_eps", 1e-5));
  m.set_float("llama.rope.freq_base", params.get_number("rope_theta", 10000));
  if (params.has("sliding_window")) {  // Mistral's
    m.set_int("llama.attention.sliding_window", params.get_int("sliding_window", 1, largest_value));
  }
  if (!params.get_bool("use_scaled_rope", false)) return;
  // Llama 3.1's numbers. params.json does not say that the small models of 3.2, the only ones below 4096 channels,
  // stretch by 32; ExecuTorch's may.
  m.set_string("llama.rope.scaling.type", "llama3");
  m.set_float("llama.rope.scaling.factor", params.get_number("rope_scale_factor", shapes.dim < 4096 ? 32 : 8));
  m.set_float("llama.rope.scaling.low_freq_factor", params.get_number("low_freq_factor", 1));
  m.set_float("llama.rope.scaling.high_freq_factor", params.get_number("high_freq_factor", 4));
  m.set_int("llama.rope.scaling.original_context_length", 8192);
}

// ---- files ----

/// Files of a folder with one of these endings, in order of their names.
std::vector<fs::path> files_ending(const fs::path& folder, std::initializer_list<std::string_view> endings) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool fits =
        std::any_of(endings.begin(), endings.end(), [&](std::string_view end) { return name.ends_with(end); });
    if (fits && is_file(entry.path())) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

fs::path find_checkpoint(const fs::path& given) {
  const std::string ending = given.extension().string();
  if (!is_folder(given) && ending != ".json") return given;
  const fs::path folder = folder_of(given);
  const fs::path first = folder / "consolidated.00.pth";
  if (is_file(first)) return first;
  const std::vector<fs::path> found = files_ending(folder, {".pth", ".pt"});
  if (found.size() == 1) return found[0];
  fail("{}: {} checkpoints (.pth, .pt) beside params.json; give the path of {}", printable(folder.string(), 400),
       found.empty() ? "no" : "several", found.empty() ? "one" : "the right one");
}

void refuse_parts(const fs::path& checkpoint) {
  const fs::path second = checkpoint.parent_path() / "consolidated.01.pth";
  if (!checkpoint.filename().string().starts_with("consolidated.") || !is_file(second)) return;
  fail(
      "{}: a model in several files (consolidated.01.pth too) is not supported; convert it to Hugging Face's format "
      "or GGUF",
      printable(checkpoint.string(), 400));
}

JsonObject find_params(const fs::path& checkpoint, const TorchCheckpoint& opened) {
  const JsonObject inside = opened.arguments();
  const fs::path folder = folder_of(checkpoint);
  if (const fs::path params = folder / "params.json"; is_file(params)) {
    JsonObject said = read_json_file(params.string());
    said.add_missing(inside.value());
    return said;
  }
  if (inside.has("n_heads")) return inside;
  std::vector<JsonObject> fitting;
  for (const fs::path& path : files_ending(folder, {".json"})) {
    try {
      JsonObject object = read_json_file(path.string());
      if (object.has("dim") && object.has("n_layers") && object.has("n_heads")) fitting.push_back(std::move(object));
    } catch (const Error&) {  // somebody else's file
    }
  }
  return fitting.size() == 1 ? fitting[0] : JsonObject(nlohmann::json::object(), checkpoint.string());
}

}  // namespace

bool is_meta_folder(const std::string& path) {
  const fs::path folder = folder_of(path);
  if (!is_folder(path) && fs::path(path).filename() != "params.json") return false;
  return is_file(folder / "params.json") || is_file(folder / "consolidated.00.pth");
}

void read_meta(const TorchCheckpoint& checkpoint, const JsonObject& params, ModelFile& model) {
  const std::string path = printable(model.path, 400);
  write_metadata(params, Shapes(checkpoint, path), model.metadata);
  const auto& tensors = checkpoint.tensors();
  const TorchCheckpoint::Tensor& embedding = tensors.at("tok_embeddings.weight");
  for (const auto& [name, tensor] : tensors) {
    if (name == "output.weight" && tensor == embedding) continue;  // shared, which GGUF says by leaving it out
    std::string gguf = gguf_name(name, path);
    if (!gguf.empty()) model.add(checkpoint.stored(name, std::move(gguf)));
  }
}

ModelFile open_meta(const std::string& path) {
  const fs::path checkpoint_path = find_checkpoint(path);
  refuse_parts(checkpoint_path);
  ModelFile model;
  model.path = checkpoint_path.string();
  model.kind = "PyTorch checkpoint";
  model.metadata.set_origin(printable(model.path, 400));
  const fs::path full = fs::absolute(checkpoint_path).lexically_normal();
  const bool by_folder = full.stem().string().starts_with("consolidated");
  model.metadata.set_string("general.name", (by_folder ? full.parent_path().filename() : full.stem()).string());
  model.maps.emplace_back(model.path);
  const TorchCheckpoint checkpoint(model.maps[0].bytes(), model.path);
  read_meta(checkpoint, find_params(checkpoint_path, checkpoint), model);
  return model;
}

}  // namespace contexture
