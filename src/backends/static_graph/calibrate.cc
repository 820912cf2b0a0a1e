#include "backends/static_graph/calibrate.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/static_graph/constants.h"
#include "backends/static_graph/executor.h"
#include "base/aligned.h"
#include "base/error.h"

namespace contexture {
namespace {

/// A float shard with its constants in memory.
struct LoadedShard {
  ShardDraft draft;
  std::vector<AlignedArray<std::byte>> data;

  LoadedShard(ShardDraft made, const ConstantData& source) : draft(std::move(made)) {
    for (size_t i = 0; i < draft.program.constants.size(); ++i) {
      GraphConstant& constant = draft.program.constants[i];
      data.emplace_back(constant_bytes(constant));
      std::byte* to = data.back().data();
      source.produce(draft, i, [&](std::span<const std::byte> piece) {
        std::memcpy(to, piece.data(), piece.size());
        to += piece.size();
      });
      constant.data = data.back().span();
    }
  }
};

class Calibrator {
 public:
  Calibrator(const ModelFile& file, const ModelConfig& config, const ConstantData& data, const Calibration& calibration,
             ThreadPool& pool)
      : file_(file), c_(config), data_(data), calibration_(calibration), pool_(pool) {
    const size_t tokens = calibration.tokens.size();
    if (tokens == 0) fail("the calibration text has no tokens; give a text of the kind that the model will see");
    options_.context = options_.prefill_length = std::min(calibration.context, tokens);
    options_.decode = options_.per_head = false;
    for (size_t begin = 0; begin < tokens; begin += window()) windows_.push_back(std::min(begin, tokens - window()));
  }

  Ranges run() {
    embed();
    for (size_t layer = 0; layer < c_.layers; ++layer) {
      run_shard({.index = 1, .count = 3, .first_layer = layer, .layers = 1});
      progress(layer + 1);
    }
    run_shard({.index = 2, .count = 3, .first_layer = c_.layers, .layers = 0});
    progress(c_.layers + 1);
    return std::move(ranges_);
  }

 private:
  size_t window() const { return options_.context; }

  void progress(size_t done) const {
    if (calibration_.progress) calibration_.progress(done, c_.layers + 1);
  }

  void embed() {
    ranges_["embedding"] = data_.embedding_range();
    hidden_.resize(windows_.size() * window() * c_.dim);
    for (size_t w = 0; w < windows_.size(); ++w) {
      for (size_t i = 0; i < window(); ++i) {
        const auto token = static_cast<size_t>(calibration_.tokens[windows_[w] + i]);
        if (token >= c_.vocabulary)
          fail("the calibration text's token {} is beyond the vocabulary of {}", token, c_.vocabulary);
        data_.embedding_row(token, hidden_.data() + (w * window() + i) * c_.dim);
      }
    }
    mask_.resize(window() * window());
    for (size_t row = 0; row < window(); ++row) {
      for (size_t column = row + 1; column < window(); ++column) mask_[row * window() + column] = -65535;
    }
    // The tables that a first shard would gather from, all of them.
    const ShardDraft first =
        build_shard(file_, c_, {.index = 0, .count = 3, .first_layer = 0, .layers = 0}, options_, {});
    for (size_t i = 0; i < first.sources.size(); ++i) {
      std::vector<float>* to = first.sources[i].kind == ConstantSource::Kind::cos   ? &cos_
                               : first.sources[i].kind == ConstantSource::Kind::sin ? &sin_
                                                                                    : nullptr;
      if (!to) continue;
      data_.produce(first, i, [&](std::span<const std::byte> piece) {
        const float* values = reinterpret_cast<const float*>(piece.data());
        to->insert(to->end(), values, values + piece.size() / sizeof(float));
      });
    }
  }

  void run_shard(const ShardRange& range) {
    const LoadedShard shard(build_shard(file_, c_, range, options_, {}), data_);
    GraphExecutor executor(shard.draft.program, 0, pool_);
    const Graph& graph = executor.graph();
    std::vector<std::vector<float>> outputs;
    std::vector<float> hidden_out(window() * c_.dim);
    for (size_t i = 0; i < graph.outputs.size(); ++i) {
      const GraphTensor& t = graph.tensors[graph.outputs[i]];
      outputs.emplace_back(t.name == "hidden_out" ? 0 : t.elements());
      float* to = t.name == "hidden_out" ? hidden_out.data() : outputs.back().data();
      executor.bind_output(i, reinterpret_cast<std::byte*>(to));
    }
    executor.observer = [&](uint32_t tensor) { observe(executor, tensor, range.first_layer); };
    for (size_t w = 0; w < windows_.size(); ++w) {
      if (calibration_.cancelled && *calibration_.cancelled) fail("interrupted; nothing is written");
      float* hidden = hidden_.data() + w * window() * c_.dim;
      for (size_t i = 0; i < graph.inputs.size(); ++i) {
        const std::string& name = graph.tensors[graph.inputs[i]].name;
        const float* from = name == "hidden_in"     ? hidden
                            : name == "rope_cos_in" ? cos_.data()
                            : name == "rope_sin_in" ? sin_.data()
                                                    : mask_.data();
        executor.bind_input(i, reinterpret_cast<const std::byte*>(from));
      }
      executor.run();
      if (!range.last()) std::copy(hidden_out.begin(), hidden_out.end(), hidden);
    }
  }

  void observe(const GraphExecutor& executor, uint32_t tensor, size_t layer) {
    const GraphTensor& t = executor.graph().tensors[tensor];
    const std::string name = t.name == "hidden_out" ? fmt::format("blk.{}.ffn_add", layer) : t.name;
    constexpr size_t kPart = size_t{1} << 16;
    const float* values = executor.data<float>(tensor);
    const size_t count = t.elements();
    std::vector<Range> ranges(static_cast<size_t>(pool_.threads()));
    const bool masked = t.name.ends_with(".masked");
    pool_.run((count + kPart - 1) / kPart, [&](size_t part, int thread) {
      const std::span<const float> some(values + part * kPart, std::min(kPart, count - part * kPart));
      Range& range = ranges[static_cast<size_t>(thread)];
      if (masked) {
        range.add_finite(some);
      } else {
        range.add(some);
      }
    });
    Range& all = ranges_[name];
    for (const Range& r : ranges) all = {std::min(all.low, r.low), std::max(all.high, r.high)};
    if (!std::isfinite(all.low) || !std::isfinite(all.high)) fail("{} is not finite over the calibration text", name);
  }

  const ModelFile& file_;
  const ModelConfig& c_;
  const ConstantData& data_;
  const Calibration& calibration_;
  ThreadPool& pool_;
  GraphOptions options_;
  std::vector<size_t> windows_;  // first tokens
  std::vector<float> hidden_;    // (windows, window, dim)
  std::vector<float> cos_, sin_, mask_;
  Ranges ranges_;
};

}  // namespace

Ranges calibrate(const ModelFile& file, const ModelConfig& config, const ConstantData& data,
                 const Calibration& calibration, ThreadPool& pool) {
  return Calibrator(file, config, data, calibration, pool).run();
}

}  // namespace contexture
