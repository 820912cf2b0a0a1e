#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "backends/static_graph/build.h"
#include "backends/static_graph/graph_mode.h"
#include "base/thread_pool.h"
#include "files/model_file.h"

namespace contexture {

struct CompileTask {
  std::string out;  ///< the directory to write
  size_t shards = 1;
  size_t context = 512;
  size_t prefill_length = 32;  ///< of hybrid
  GraphMode mode = GraphMode::hybrid;
  bool per_head = true;  ///< a K and a V tensor a head, for every updater; else one a layer
  Recipe recipe;
  std::vector<int32_t> calibration = {};  ///< tokens of a text; a fixed-point recipe needs them
  Metadata tokenizer = {};                ///< what tokenizer.gguf holds; empty: it is not written
  std::string version = {};               ///< of the program, for the description
  std::function<void(std::string_view what, size_t done, size_t total)> progress = {};
  const std::atomic<bool>* cancelled = nullptr;
};

struct Compilation {
  size_t shards = 0;
  size_t bytes = 0;  ///< of all files
};

/// Writes a model as shards (docs/static_graphs.md, "The directory"). The directory appears when it is whole; one that
/// is a compiled model already is replaced then. Same model, task and text: the same bytes, whatever the number of
/// threads. Throws Error: no graphs can be made of the model, the disk is full, cancelled.
Compilation compile_model(const ModelFile& file, const CompileTask& task, ThreadPool& pool);

/// What qnn-context-binary-utility would say of a shard, as JSON.
std::string description_json(const ShardProgram& program, const std::string& version);

}  // namespace contexture
