#include "engine/convert.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "engine/opened_model.h"
#include "files/gguf_writer.h"
#include "model/weights.h"

namespace contexture {
namespace {

/// A tensor to write: the rows of one stored tensor, perhaps in another order, or of several, one after the other.
struct OutputTensor {
  StoredTensor tensor;  // without data
  std::vector<const StoredTensor*> parts;
  size_t head_rows = 0;     // not 0: within every head of so many rows,
  size_t rotated_rows = 0;  // the first so many are stored as halves and are to be interleaved

  size_t columns() const { return static_cast<size_t>(tensor.shape.back()); }
  size_t rows() const {
    size_t rows = 1;
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= static_cast<size_t>(tensor.shape[i]);
    return rows;
  }
  size_t bytes() const { return rows() * bytes_of(tensor.format, columns()); }

  const std::byte* source_row(size_t row) const {
    if (head_rows > 0 && row % head_rows < rotated_rows) {
      const size_t in_head = row % head_rows;
      row += (in_head % 2 == 0 ? in_head / 2 : in_head / 2 + rotated_rows / 2) - in_head;
    }
    const size_t part_rows = rows() / parts.size();
    return parts[row / part_rows]->data.data() + row % part_rows * bytes_of(parts[0]->format, columns());
  }
};

/// What a type becomes for rows that are not whole blocks of it.
Format fitting(Format type, size_t columns) {
  if (columns % info(type).block == 0) return type;
  return columns % info(Format::q8_0).block == 0 ? Format::q8_0 : Format::f16;
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
    tensors.push_back({made_, {&made_}});
  }

  bool style_is_halves() const { return config_.rope().style == RopeStyle::halves; }

  void add(const StoredTensor& tensor) {
    OutputTensor output{{tensor.name, format_of(tensor), tensor.shape, {}}, {&tensor}};
    for (const char* kind : {"ffn_gate", "ffn_up", "ffn_down"}) {
      const size_t at = tensor.name.find(fmt::format(".{}.", kind));
      if (config_.experts == 0 || at == tensor.name.npos) continue;
      const std::string block = tensor.name.substr(0, at);
      const auto expert = [&](size_t e) { return fmt::format("{}.{}.{}.weight", block, kind, e); };
      if (tensor.name != expert(0)) return;  // comes with the first
      output.parts.clear();
      for (size_t e = 0; e < config_.experts; ++e) output.parts.push_back(file_.find(expert(e)));
      output.tensor.name = fmt::format("{}.{}_exps.weight", block, kind);
      output.tensor.shape.insert(output.tensor.shape.begin(), static_cast<int64_t>(config_.experts));
    }
    const bool rotated = tensor.name.ends_with(".attn_q.weight") || tensor.name.ends_with(".attn_k.weight");
    if (interleaves() && rotated) {
      output.head_rows = config_.head_dim;
      output.rotated_rows = config_.rope().dim;
    }
    tensors.push_back(std::move(output));
  }

  Format format_of(const StoredTensor& tensor) const {
    if (tensor.shape.size() == 1) return Format::f32;
    if (!type_) return tensor.format;
    const bool is_quantised = info(*type_).block > 1;
    if (is_quantised && tensor.name.ends_with("ffn_gate_inp.weight")) return Format::f32;
    const size_t columns = static_cast<size_t>(tensor.shape.back());
    const bool is_output = tensor.name == (file_.find("output.weight") ? "output.weight" : "token_embd.weight");
    if (is_output && (*type_ == Format::q4_0 || *type_ == Format::q4_k)) return fitting(Format::q6_k, columns);
    return fitting(*type_, columns);
  }

  const ModelFile& file_;
  const ModelConfig& config_;
  std::optional<Format> type_;
  std::vector<float> divisors_;
  StoredTensor made_;
};

/// The file's metadata, less what described its old form, plus what describes the new one.
Metadata output_metadata(const ModelFile& file, const OutputPlan& plan, const std::string& family,
                         const std::optional<Vocabulary>& vocabulary) {
  Metadata metadata = file.metadata;
  for (const char* key : {"split.no", "split.count", "split.tensors.count", "general.alignment"}) metadata.forget(key);
  if (plan.interleaves()) metadata.forget(family + ".rope.style");
  if (plan.scales_by_tensor()) {
    for (const char* key : {"type", "factor", "low_freq_factor", "high_freq_factor", "original_context_length"}) {
      metadata.forget(fmt::format("{}.rope.scaling.{}", family, key));
    }
  }
  if (!metadata.has("tokenizer.ggml.tokens") && vocabulary) vocabulary_to_metadata(*vocabulary, metadata);
  metadata.set_int("general.quantization_version", 2);
  return metadata;
}

/// Fills a buffer with consecutive rows of an output tensor, in its format.
class RowEncoder {
 public:
  explicit RowEncoder(int threads) : pool_(threads), floats_(static_cast<size_t>(threads)) {}

  void encode(const OutputTensor& output, size_t first, size_t count, std::byte* out) {
    const Format from = output.parts[0]->format, to = output.tensor.format;
    const size_t columns = output.columns(), bytes = bytes_of(to, columns);
    pool_.run(count, [&](size_t r, int thread) {
      const std::byte* source = output.source_row(first + r);
      if (from == to) {
        std::copy_n(source, bytes, out + r * bytes);
        return;
      }
      std::vector<float>& row = floats_[static_cast<size_t>(thread)];
      row.resize(columns);
      info(from).decode(source, row.data(), columns);
      if (to != Format::f32 && to != Format::bf16) check_range(row);
      info(to).encode(row.data(), out + r * bytes, columns);
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

}  // namespace

bool can_convert_to(Format format) {
  return info(format).encode != nullptr && format != Format::q6_k;
}

Conversion convert_model(const ConvertTask& task) {
  const ModelFile file = open_model(task.in);
  const std::optional<Vocabulary> vocabulary = find_vocabulary(file, task.tokenizer);
  ModelConfig config = read_config(file.metadata);
  check_weights(file, config);
  const OutputPlan plan(file, config, task.type);
  const Metadata metadata = output_metadata(file, plan, config.family, vocabulary);

  std::vector<StoredTensor> heads;
  size_t total = 0;
  for (const OutputTensor& output : plan.tensors) {
    heads.push_back(output.tensor);
    total += output.bytes();
    if (task.type && output.tensor.format != output.parts[0]->format && info(output.parts[0]->format).block > 1) {
      spdlog::debug("{} was quantised already ({}): quantising again loses more", output.tensor.name,
                    name(output.parts[0]->format));
    }
  }
  constexpr size_t piece_bytes = size_t{16} << 20;
  RowEncoder encoder(task.threads);
  std::vector<std::byte> piece;
  size_t done = 0;
  write_gguf(task.out, metadata, heads, [&](size_t tensor, const auto& write) {
    const OutputTensor& output = plan.tensors[tensor];
    const size_t row_bytes = bytes_of(output.tensor.format, output.columns());
    const size_t rows_a_piece = std::max<size_t>(1, piece_bytes / row_bytes);
    for (size_t row = 0; row < output.rows(); row += rows_a_piece) {
      if (task.cancelled && *task.cancelled) fail("interrupted; {} is not written", printable(task.out, 400));
      const size_t rows = std::min(rows_a_piece, output.rows() - row);
      piece.resize(rows * row_bytes);
      encoder.encode(output, row, rows, piece.data());
      write(piece);
      done += piece.size();
      if (task.progress) task.progress(done, total);
    }
  });
  return {.tensors = heads.size(), .bytes = static_cast<size_t>(std::filesystem::file_size(task.out))};
}

}  // namespace contexture
