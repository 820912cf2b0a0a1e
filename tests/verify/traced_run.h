#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/runtime.h"
#include "files/gguf.h"
#include "files/gguf_writer.h"
#include "support/random_model.h"
#include "verify/attention_check.h"
#include "verify/trace.h"
#include "verify/trace_writer.h"

namespace contexture {

inline bool every_one(size_t) {
  return true;
}

/// Runs tokens through a random model of 2 layers, as two chunks of a prompt and four tokens more, and traces it.
inline void write_traced_run(const RandomModel& model, const RunOptions& options, size_t prompt,
                             const std::string& path, TraceWriter::Choice layers = every_one,
                             TraceWriter::Choice steps = every_one) {
  const TemporaryFile model_file;
  write_random_model(model, model_file.path());
  const ModelFile file = open_model(model_file.path());
  RunOptions run = options;
  run.cache.context = prompt + 4;
  run.chunk = prompt;
  Runtime runtime(file, run);
  TraceWriter trace(path, "random", std::move(layers), std::move(steps));
  const SequenceId sequence = runtime.cache().create().value();
  std::mt19937 random(model.seed);
  for (const size_t count : {prompt / 3, prompt - prompt / 3, size_t{1}, size_t{1}, size_t{1}, size_t{1}}) {
    const size_t first = runtime.cache().length(sequence);
    ASSERT_TRUE(runtime.cache().append(sequence, count));
    std::vector<TokenId> tokens(count);
    std::vector<int64_t> positions(count);
    for (size_t i = 0; i < count; ++i) {
      tokens[i] = static_cast<TokenId>(random() % model.vocabulary);
      positions[i] = static_cast<int64_t>(first + i);
    }
    const std::vector<SequenceId> sequences(count, sequence);
    const std::vector<uint8_t> wants(count, 0);
    (void)runtime.model().forward(
        {.tokens = tokens, .positions = positions, .sequences = sequences, .wants_logits = wants, .observer = &trace},
        runtime.cache(), runtime.workspace(), runtime.pool());
  }
  trace.finish();
}

/// A trace taken apart, to be changed and written again.
class TraceCopy {
 public:
  explicit TraceCopy(const std::string& path) : file_(path) {
    const ModelFile read = read_gguf(file_.bytes(), path, kTraceFile);
    metadata = read.metadata;
    for (const StoredTensor& tensor : read.tensors) add(tensor.name, tensor.format, tensor.shape, tensor.data);
  }

  void add(const std::string& name, Format format, std::vector<int64_t> shape, std::span<const std::byte> data) {
    data_.emplace_back(data.begin(), data.end());
    tensors.push_back({.name = name, .format = format, .shape = std::move(shape), .data = data_.back()});
  }
  StoredTensor& tensor(const std::string& name) {
    for (StoredTensor& t : tensors) {
      if (t.name == name) return t;
    }
    throw std::runtime_error("no tensor " + name);
  }
  template <class T>
  std::span<T> values(const std::string& name) {
    const std::span<const std::byte> data = tensor(name).data;  // of data_
    return {reinterpret_cast<T*>(const_cast<std::byte*>(data.data())), data.size() / sizeof(T)};
  }
  void remove(const std::string& name) { tensors.erase(tensors.begin() + (&tensor(name) - tensors.data())); }
  void write(const std::string& path) const { write_gguf(path, metadata, tensors); }

  Metadata metadata;
  std::vector<StoredTensor> tensors;

 private:
  MappedFile file_;
  std::deque<std::vector<std::byte>> data_;
};

/// Which attentions of a trace are wrong, as "layer/step".
inline std::vector<std::string> wrong_attentions(const std::string& path) {
  const Trace trace = open_trace(path);
  ThreadPool pool(2);
  std::vector<std::string> wrong;
  for (size_t i = 0; i < trace.size(); ++i) {
    TracedAttention a = trace.attention(i);
    const AttentionCheck check = check_attention(a.queries(), a.shape, pool);
    if (!check.ok()) wrong.push_back(fmt::format("{}/{}", a.layer, a.step));
  }
  return wrong;
}

}  // namespace contexture
