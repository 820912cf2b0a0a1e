#include "engine/convert.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "engine/convert_target.h"
#include "engine/opened_model.h"
#include "files/gguf_writer.h"
#include "model/weights.h"

namespace contexture {
namespace {

/// A tensor to write: the rows of one stored tensor, perhaps in another order, or of several, one after the other.
struct OutputTensor {
  StoredTensor tensor;  // without data
  std::vector<const StoredTensor*> parts;
  Format wanted = tensor.format;  // which it has, unless rows are not whole blocks of it
  size_t rows = 1, columns = 0;   // as they are taken; a vector whose elements change places has rows of one
  size_t head_rows = 0;           // not 0: within every head of so many rows,
  size_t rotated_rows = 0;        // the first so many are stored as halves and are to be interleaved

  size_t row_bytes() const { return bytes_of(tensor.format, columns); }
  size_t bytes() const { return rows * row_bytes(); }

  struct Source {
    Format format;
    const std::byte* row;
  };
  Source source(size_t row) const {
    if (head_rows > 0 && row % head_rows < rotated_rows) {
      const size_t in_head = row % head_rows;
      row += (in_head % 2 == 0 ? in_head / 2 : in_head / 2 + rotated_rows / 2) - in_head;
    }
    const size_t part_rows = rows / parts.size();
    const StoredTensor& part = *parts[row / part_rows];
    return {part.format, part.data.data() + row % part_rows * bytes_of(part.format, columns)};
  }
};

/// What a type becomes for rows that are not whole blocks of it: of blocks of 32 the next that is no worse, as the
/// mixes of the field have it.
Format fitting(Format type, size_t columns) {
  const auto fits = [columns](Format format) { return columns % info(format).block == 0; };
  if (fits(type)) return type;
  const Format smaller_blocks = type == Format::q4_k ? Format::q5_0 : Format::q8_0;
  return fits(smaller_blocks) ? smaller_blocks : Format::f16;
}

/// Which tensors the output file has, and how each comes about.
class OutputPlan {
 public:
  OutputPlan(const OutputPlan&) = delete;  // tensors point into it
  OutputPlan(const ModelFile& file, const ModelConfig& config, std::optional<Format> type)
      : file_(file), config_(config), type_(type) {
    for (const StoredTensor& tensor : file.tensors) add(tensor);
    add_rope_divisors();
  }

  std::vector<OutputTensor> tensors;

  /// The family's GGUF files have neighbouring pairs; this file says that it has halves (see rope.h).
  bool interleaves() const { return file_.metadata.has(config_.family + ".rope.style") && style_is_halves(); }

  /// GGUF files have Llama 3.1's scaling as a tensor of divisors.
  bool scales_by_tensor() const {
    return config_.rope().scaling == RopeConfig::Scaling::llama3 && !file_.find("rope_freqs.weight");
  }

 private:
  void add_rope_divisors() {
    if (!scales_by_tensor()) return;
    RopeConfig unscaled = config_.rope();
    unscaled.scaling = RopeConfig::Scaling::none;
    const std::vector<double> before = rope_frequencies(unscaled), after = rope_frequencies(config_.rope());
    for (size_t i = 0; i < before.size(); ++i) divisors_.push_back(static_cast<float>(before[i] / after[i]));
    made_ = {"rope_freqs.weight",
             Format::f32,
             {static_cast<int64_t>(divisors_.size())},
             std::as_bytes(std::span(divisors_))};
    tensors.push_back({made_, {&made_}, Format::f32, 1, divisors_.size()});
  }

  bool style_is_halves() const { return config_.rope().style == RopeStyle::halves; }

  void add(const StoredTensor& tensor) {
    const Format wanted = format_of(tensor), fits = fitting(wanted, static_cast<size_t>(tensor.shape.back()));
    OutputTensor output{{tensor.name, fits, tensor.shape, {}}, {&tensor}, wanted};
    join_experts(output);
    if (output.parts.empty()) return;
    const std::vector<int64_t>& shape = output.tensor.shape;
    output.columns = static_cast<size_t>(shape.back());
    for (size_t i = 0; i + 1 < shape.size(); ++i) output.rows *= static_cast<size_t>(shape[i]);
    if (interleaves()) interleave(output);
    tensors.push_back(std::move(output));
  }

  /// Makes the first expert's tensor that of all; the others' come with it and lose their parts.
  void join_experts(OutputTensor& output) const {
    const std::string& name = output.tensor.name;
    for (const char* kind : {"ffn_gate", "ffn_up", "ffn_down"}) {
      const size_t at = name.find(fmt::format(".{}.", kind));
      if (config_.experts == 0 || at == name.npos) continue;
      const std::string block = name.substr(0, at);
      const auto expert = [&](size_t e) { return fmt::format("{}.{}.{}.weight", block, kind, e); };
      output.parts.clear();
      if (name != expert(0)) return;
      for (size_t e = 0; e < config_.experts; ++e) {
        output.parts.push_back(file_.find(expert(e)));
        // Without a type each tensor keeps its format; f32 holds what any two of them have in common.
        if (!type_ && output.parts[e]->format != output.tensor.format) {
          output.tensor.format = output.wanted = Format::f32;
        }
      }
      output.tensor.name = fmt::format("{}.{}_exps.weight", block, kind);
      output.tensor.shape.insert(output.tensor.shape.begin(), static_cast<int64_t>(config_.experts));
      return;
    }
  }

  void interleave(OutputTensor& output) const {
    const std::string& name = output.tensor.name;
    if (name.find(".attn_qkv.") != name.npos) {
      fail("{}: joined, and in halves: this version does not convert that", printable(name));
    }
    for (const char* rotated : {".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias"}) {
      if (!name.ends_with(rotated)) continue;
      if (output.tensor.shape.size() == 1) std::swap(output.rows, output.columns);
      output.head_rows = config_.head_dim;
      output.rotated_rows = config_.rope().dim;
    }
  }

  Format format_of(const StoredTensor& tensor) const {
    if (tensor.shape.size() == 1) return Format::f32;
    if (!type_) return tensor.format;
    const bool is_quantised = info(*type_).block > 1;
    if (is_quantised && tensor.name.ends_with("ffn_gate_inp.weight")) return Format::f32;
    const bool is_output = tensor.name == (file_.find("output.weight") ? "output.weight" : "token_embd.weight");
    return is_output && (*type_ == Format::q4_0 || *type_ == Format::q4_k) ? Format::q6_k : *type_;
  }

  const ModelFile& file_;
  const ModelConfig& config_;
  std::optional<Format> type_;
  std::vector<float> divisors_;
  StoredTensor made_;
};

/// llama.cpp takes the number of tokens from their list and wants as many rows in the embedding; models round those up.
void fill_up(Vocabulary& vocabulary, size_t rows) {
  for (size_t id = vocabulary.pieces.size(); id < rows; ++id) {
    vocabulary.pieces.push_back(fmt::format("[PAD{}]", id));
    vocabulary.types.push_back(PieceType::unused);
    if (!vocabulary.scores.empty()) vocabulary.scores.push_back(0);
  }
}

/// llama.cpp's number for a file mostly of this format (its enum llama_ftype).
int64_t file_type(Format format) {
  switch (format) {
    case Format::f32:
      return 0;
    case Format::f16:
      return 1;
    case Format::q4_0:
      return 2;
    case Format::q8_0:
      return 7;
    case Format::q4_k:
      return 14;
    case Format::bf16:
      return 32;
    default:
      fail("convert does not write {}", name(format));
  }
}

void forget_starting_with(Metadata& metadata, std::string_view prefix) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : metadata.entries()) {
    if (key.starts_with(prefix)) keys.push_back(key);
  }
  for (const std::string& key : keys) metadata.forget(key);
}

/// The file's metadata, less what described its old form, plus what describes the new one.
Metadata output_metadata(const ModelFile& file, const OutputPlan& plan, const ModelConfig& config,
                         const ConvertTask& task) {
  Metadata metadata = file.metadata;
  forget_starting_with(metadata, "split.");
  metadata.forget("general.alignment");
  if (plan.interleaves()) metadata.forget(config.family + ".rope.style");
  if (plan.scales_by_tensor()) {
    for (const char* key : {"type", "factor", "low_freq_factor", "high_freq_factor", "original_context_length"}) {
      metadata.forget(fmt::format("{}.rope.scaling.{}", config.family, key));
    }
  }
  std::optional<Vocabulary> vocabulary = find_vocabulary(file, task.tokenizer);
  if (vocabulary && (!task.tokenizer.empty() || !metadata.has("tokenizer.ggml.tokens"))) {
    for (const char* old : {"tokenizer.ggml.", "tokenizer.bos_token", "tokenizer.eos_token"}) {
      forget_starting_with(metadata, old);
    }
    fill_up(*vocabulary, config.vocabulary);
    vocabulary_to_metadata(*vocabulary, metadata);
  }
  if (!vocabulary) {
    // So that other programs load it: without a word they look for a vocabulary, and this is how they learn its size.
    metadata.set_string("tokenizer.ggml.model", "no_vocab");
    metadata.set_int(config.family + ".vocab_size", static_cast<int64_t>(config.vocabulary));
  }
  if (task.type) {
    forget_starting_with(metadata, "quantize.");
    metadata.set_int("general.file_type", file_type(*task.type));
  }
  metadata.set_int("general.quantization_version", 2);
  return metadata;
}

/// Fills a buffer with consecutive rows of an output tensor, in its format.
class RowEncoder {
 public:
  explicit RowEncoder(int threads) : pool_(threads), floats_(static_cast<size_t>(threads)) {}

  void encode(const OutputTensor& output, size_t first, size_t count, std::byte* out) {
    const Format to = output.tensor.format;
    pool_.run(count, [&](size_t r, int thread) {
      const auto [from, source] = output.source(first + r);
      std::byte* row_out = out + r * output.row_bytes();
      if (from == to) {
        std::copy_n(source, output.row_bytes(), row_out);
        return;
      }
      std::vector<float>& row = floats_[static_cast<size_t>(thread)];
      row.resize(output.columns);
      info(from).decode(source, row.data(), output.columns);
      if (to != Format::f32 && to != Format::bf16) check_range(row);
      info(to).encode(row.data(), row_out, output.columns);
    });
    if (out_of_range_) {
      fail("tensor {} holds values that {} cannot (beyond 65504, or not numbers); convert to bf16, or without --type",
           printable(output.tensor.name), name(to));
    }
  }

 private:
  /// f16, and the f16 scales of the block formats, end at 65504.
  void check_range(const std::vector<float>& row) {
    for (const float value : row) {
      if (!(std::fabs(value) <= 65504.f)) out_of_range_ = true;
    }
  }

  ThreadPool pool_;
  std::vector<std::vector<float>> floats_;  // (threads, columns)
  std::atomic<bool> out_of_range_{false};
};

void add_fallback(const OutputTensor& output, std::vector<Conversion::Fallback>& fallbacks) {
  const Format wanted = output.wanted, written = output.tensor.format;
  auto same = std::find_if(fallbacks.begin(), fallbacks.end(),
                           [&](const auto& f) { return f.wanted == wanted && f.written == written; });
  if (same == fallbacks.end()) same = fallbacks.insert(same, {wanted, written, {}});
  same->tensors.push_back(output.tensor.name);
}

/// Tensors of many layers are named once: "blk.*.ffn_down.weight".
void warn_of(const Conversion::Fallback& fallback, size_t tensors) {
  std::vector<std::string> kinds;
  for (std::string name : fallback.tensors) {
    if (name.starts_with("blk.")) name.replace(4, std::min(name.find('.', 4), name.size()) - 4, "*");
    if (std::find(kinds.begin(), kinds.end(), name) == kinds.end()) kinds.push_back(printable(name));
  }
  log_warning("rows that are no whole blocks of {}, so {} instead: {} (tensors: {} of {})", name(fallback.wanted),
              name(fallback.written), fmt::join(kinds, ", "), fallback.tensors.size(), tensors);
}

}  // namespace

bool can_convert_to(Format format) {
  constexpr Format types[] = {Format::f32, Format::f16, Format::bf16, Format::q8_0, Format::q4_0, Format::q4_k};
  return std::find(std::begin(types), std::end(types), format) != std::end(types);
}

Conversion convert_model(const ConvertTask& task) {
  const ModelFile file = open_model(task.in);
  check_convert_target(task, file);
  ModelConfig config = read_config(file.metadata);
  check_weights(file, config);
  const OutputPlan plan(file, config, task.type);

  Conversion made{.tensors = plan.tensors.size()};
  std::vector<StoredTensor> heads;
  size_t total = 0, requantised = 0;
  for (const OutputTensor& output : plan.tensors) {
    heads.push_back(output.tensor);
    total += output.bytes();
    ++made.formats[output.tensor.format];
    if (output.wanted != output.tensor.format) add_fallback(output, made.fallbacks);
    requantised += info(output.parts[0]->format).block > 1 && output.parts[0]->format != output.tensor.format;
  }
  if (requantised > 0) {
    log_warning("{} tensors were quantised already; from the original model the result would be better", requantised);
  }
  for (const Conversion::Fallback& fallback : made.fallbacks) warn_of(fallback, made.tensors);
  constexpr size_t piece_bytes = size_t{16} << 20;
  RowEncoder encoder(task.threads);
  std::vector<std::byte> piece;
  size_t done = 0;
  write_gguf(task.out, output_metadata(file, plan, config, task), heads, [&](size_t tensor, const auto& write) {
    const OutputTensor& output = plan.tensors[tensor];
    const size_t rows_a_piece = std::max<size_t>(1, piece_bytes / output.row_bytes());
    for (size_t row = 0; row < output.rows; row += rows_a_piece) {
      if (task.cancelled && *task.cancelled) fail("interrupted; {} is not written", printable(task.out, 400));
      const size_t rows = std::min(rows_a_piece, output.rows - row);
      piece.resize(rows * output.row_bytes());
      encoder.encode(output, row, rows, piece.data());
      write(piece);
      done += piece.size();
      if (task.progress) task.progress(done, total);
    }
  });
  made.bytes = static_cast<size_t>(std::filesystem::file_size(task.out));
  return made;
}

}  // namespace contexture
