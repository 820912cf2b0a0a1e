#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/static_graph/container.h"
#include "backends/static_graph/executor.h"
#include "base/error.h"
#include "base/mapped_file.h"

namespace contexture {

/// Runs a compiled model in the plainest way there is: K and V of each token are kept apart, and the graphs' inputs are
/// laid out anew for every execution, token i of the past in column i. What no token fills is `poison` bytes.
class StaticDriver {
 public:
  explicit StaticDriver(const std::string& folder, int threads = 1) : pool_(threads) {
    for (size_t i = 0; std::filesystem::exists(binary(folder, i)); ++i) {
      maps_.emplace_back(binary(folder, i));
      programs_.push_back(std::make_unique<ShardProgram>(read_container(maps_.back().bytes(), binary(folder, i))));
    }
    for (const auto& program : programs_) {
      for (size_t g = 0; g < program->graphs.size(); ++g) {
        runs_[program->graphs[g].name].push_back(std::make_unique<GraphExecutor>(*program, g, pool_));
      }
    }
  }

  static std::string binary(const std::string& folder, size_t i) {
    return folder + "/forward_" + std::to_string(i) + ".bin";
  }

  size_t shards() const { return programs_.size(); }
  const ShardProgram& program(size_t shard) const { return *programs_[shard]; }
  bool has(const std::string& graph) const { return runs_.contains(graph); }
  size_t tokens_of(const std::string& graph) { return mask_of(graph).dim(1); }
  size_t context() { return mask_of(runs_.begin()->first).dim(0); }

  /// Prefill in chunks where there is a graph for it, decode for the rest; the logits of every token (tokens,
  /// vocabulary).
  std::vector<float> feed(const std::vector<int32_t>& tokens, bool prefill) {
    std::vector<float> logits;
    for (size_t at = 0; at < tokens.size();) {
      const std::string graph = prefill && has("prefill_forward") ? "prefill_forward" : "kv_forward";
      const size_t count = std::min(tokens_of(graph), tokens.size() - at);
      const std::vector<float> more = execute(
          graph, {tokens.begin() + static_cast<ptrdiff_t>(at), tokens.begin() + static_cast<ptrdiff_t>(at + count)});
      logits.insert(logits.end(), more.begin(), more.end());
      at += count;
    }
    return logits;
  }

  void reset() {
    past_ = 0;
    kv_.clear();
  }
  std::byte poison{0};
  /// All bytes of K and V so far, by tensor's name and token.
  const std::map<std::string, std::vector<std::vector<std::byte>>>& kv() const { return kv_; }

 private:
  const GraphTensor& mask_of(const std::string& graph) {
    const Graph& g = runs_.at(graph)[0]->graph();
    for (const uint32_t i : g.inputs) {
      if (g.tensors[i].name == "atten_mask") return g.tensors[i];
    }
    fail("no mask");
  }

  static void store(const GraphTensor& t, std::byte* to, float value) {
    if (t.type == NumberType::f32) std::memcpy(to, &value, 4);
    if (t.type == NumberType::i32) {
      const int32_t whole = static_cast<int32_t>(value);
      std::memcpy(to, &whole, 4);
    }
    if (t.type == NumberType::u16) {
      const auto raw = static_cast<uint16_t>(std::lround(value / t.encoding.scale) + t.encoding.zero_point);
      std::memcpy(to, &raw, 2);
    }
  }
  static float load(const GraphTensor& t, const std::byte* from) {
    float value;
    if (t.type == NumberType::f32) {
      std::memcpy(&value, from, 4);
      return value;
    }
    uint16_t raw;
    std::memcpy(&raw, from, 2);
    return t.encoding.scale * static_cast<float>(raw - t.encoding.zero_point);
  }

  /// Where in a K or V tensor lies column `token`: calls f(offset of one number, place in the token's bytes).
  template <class F>
  static void each_number(const GraphTensor& t, size_t token, const F& f) {
    const bool is_k = t.name[0] == 'k';
    const size_t size = bytes_of(t.type), columns = is_k ? t.dim(0) : t.dim(1), channels = is_k ? t.dim(1) : t.dim(0);
    const size_t heads = t.elements() / (columns * channels);
    for (size_t h = 0; h < heads; ++h) {
      for (size_t c = 0; c < channels; ++c) {
        const size_t at = h * columns * channels + (is_k ? c * columns + token : token * channels + c);
        f(at * size, (h * channels + c) * size, size);
      }
    }
  }

  std::vector<float> execute(const std::string& graph, const std::vector<int32_t>& tokens) {
    const size_t width = tokens_of(graph), context = this->context();
    std::map<std::string, std::vector<std::byte>> between;
    std::vector<float> logits;
    for (const auto& executor : runs_.at(graph)) {
      const Graph& g = executor->graph();
      std::vector<std::vector<std::byte>> buffers(g.inputs.size() + g.outputs.size());
      for (size_t i = 0; i < g.inputs.size(); ++i) {
        const GraphTensor& t = g.tensors[g.inputs[i]];
        std::vector<std::byte>& bytes = buffers[i];
        bytes.assign(t.bytes(), poison);
        fill_input(t, bytes, tokens, width, context, between);
        executor->bind_input(i, bytes.data());
      }
      for (size_t i = 0; i < g.outputs.size(); ++i) {
        std::vector<std::byte>& bytes = buffers[g.inputs.size() + i];
        bytes.assign(g.tensors[g.outputs[i]].bytes(), std::byte{0xff});
        executor->bind_output(i, bytes.data());
      }
      executor->run();
      for (size_t i = 0; i < g.outputs.size(); ++i) {
        take_output(g.tensors[g.outputs[i]], buffers[g.inputs.size() + i], tokens.size(), between, logits);
      }
    }
    past_ += tokens.size();
    return logits;
  }

  void fill_input(const GraphTensor& t, std::vector<std::byte>& bytes, const std::vector<int32_t>& tokens, size_t width,
                  size_t context, const std::map<std::string, std::vector<std::byte>>& between) {
    const size_t size = bytes_of(t.type);
    if (t.name == "tokens" || t.name == "input_pos") {
      for (size_t i = 0; i < width; ++i) {
        const int32_t token = i < tokens.size() ? tokens[i] : 0,
                      position = static_cast<int32_t>(std::min(past_ + i, context - 1));
        store(t, bytes.data() + i * size, static_cast<float>(t.name == "tokens" ? token : position));
      }
    } else if (t.name == "atten_mask") {
      // The least that the encoding holds: raw 0.
      const float masked = t.type == NumberType::f32 ? -65535.f : -65535 * t.encoding.scale;
      for (size_t row = 0; row < width; ++row) {
        for (size_t column = 0; column < context; ++column) {
          const bool cached = column < context - width;
          const bool seen = cached ? column < past_ : column - (context - width) <= row;
          store(t, bytes.data() + (row * context + column) * size, seen ? 0.f : masked);
        }
      }
    } else if (t.name.find("_in_") != std::string::npos && (t.name[0] == 'k' || t.name[0] == 'v')) {
      std::string out = t.name;
      out.replace(2, 2, "out");
      const auto& stored = kv_[out];
      for (size_t token = 0; token < stored.size(); ++token) {
        each_number(t, token, [&](size_t to, size_t from, size_t n) {
          std::memcpy(bytes.data() + to, stored[token].data() + from, n);
        });
      }
    } else {
      std::string out = t.name;
      out.replace(out.size() - 2, 2, "out");
      bytes = between.at(out);
      ASSERT_EQ(bytes.size(), t.bytes());
    }
  }

  void take_output(const GraphTensor& t, std::vector<std::byte>& bytes, size_t tokens,
                   std::map<std::string, std::vector<std::byte>>& between, std::vector<float>& logits) {
    if (t.name == "logits") {
      for (size_t i = 0; i < tokens * t.dim(0); ++i) logits.push_back(load(t, bytes.data() + i * bytes_of(t.type)));
    } else if (t.name.find("_out_") != std::string::npos) {
      for (size_t token = 0; token < tokens; ++token) {
        std::vector<std::byte> one(t.bytes() / (t.name[0] == 'k' ? t.dim(0) : t.dim(1)));
        each_number(t, token,
                    [&](size_t from, size_t to, size_t n) { std::memcpy(one.data() + to, bytes.data() + from, n); });
        kv_[t.name].push_back(std::move(one));
      }
    } else {
      between[t.name] = std::move(bytes);
    }
  }

  ThreadPool pool_;
  std::vector<MappedFile> maps_;
  std::vector<std::unique_ptr<ShardProgram>> programs_;
  std::map<std::string, std::vector<std::unique_ptr<GraphExecutor>>> runs_;  // by graph, (shards)
  std::map<std::string, std::vector<std::vector<std::byte>>> kv_;            // by k_out_…, (tokens, bytes of one)
  size_t past_ = 0;
};

}  // namespace contexture
