#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "contexture/graph_backend.h"

namespace contexture {

/// manifest.json of a folder that `compile` wrote: what is in it and what it is for. Files are named without folders.
struct ContextManifest {
  struct File {
    std::string name = {};
    uint64_t bytes = 0;
    std::string sha256 = {};  ///< hexadecimal
  };
  struct Shard {
    File binary = {};       ///< forward_0.bin
    File description = {};  ///< forward_0_json.json
    uint64_t first_layer = 0, layers = 0;
  };
  std::string mode = {};       ///< "hybrid", "kv" or "prefill"
  std::string recipe = {};     ///< its name
  std::string kv_layout = {};  ///< "per-head" or "per-layer"
  uint64_t context = 0;
  uint64_t prefill_length = 0;  ///< 0: there is no prefill_forward
  uint64_t kv_bits = 0;         ///< 8, 16 or 32
  uint64_t layers = 0;
  std::optional<File> tokenizer = {};  ///< a GGUF file of vocabulary and chat template without tensors
  std::vector<Shard> shards = {};
};

inline constexpr const char* kManifestName = "manifest.json";
std::string shard_binary_name(size_t shard);

/// Throws Error where the text is none; `path` is for messages. Names are checked: a file lies in its folder.
ContextManifest parse_manifest(std::string_view text, const std::string& path);

/// Holds forward_i_json.json, which has the structure of qnn-context-binary-utility's output, against the graphs of the
/// context that it describes: names, inputs and outputs with their ids, types, dimensions, scale and signed offset, in
/// order. Throws Error with what was expected (the binary's) and what was found.
void check_context_json(std::string_view text, const std::string& path, std::span<const cxg_graph* const> graphs);

}  // namespace contexture
