#pragma once

#include <cstdint>
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
    std::string xxh3 = {};  ///< 128 bits of the whole file, 32 hex digits: tells damage and mistakes, not malice
    bool operator==(const File&) const = default;
  };
  struct Shard {
    File binary = {};  ///< forward_0.bin
    File json = {};    ///< forward_0_json.json
    uint64_t first_layer = 0, layers = 0;
    bool operator==(const Shard&) const = default;
  };
  std::string model = {};      ///< for people
  std::string mode = {};       ///< "hybrid", "kv" or "prefill"
  std::string recipe = {};     ///< as it was asked for, overrides included
  std::string kv_layout = {};  ///< "per-head" or "per-layer"
  uint64_t context = 0, prefill_length = 0;
  uint64_t kv_bits = 0;  ///< 8, 16 or 32
  uint64_t layers = 0;
  File tokenizer = {};  ///< a GGUF file of vocabulary and chat template without tensors; no name: there is none
  std::vector<Shard> shards = {};
  bool operator==(const ContextManifest&) const = default;
};

/// Names in a folder.
inline constexpr const char* kManifestName = "manifest.json";
std::string shard_binary_name(size_t shard);
std::string shard_json_name(size_t shard);

/// Size and hash of a file of a folder. Throws Error where it cannot be read.
ContextManifest::File identify_file(const std::string& folder, const std::string& name);
ContextManifest::File identify_bytes(const std::string& name, std::span<const std::byte> bytes);

std::string manifest_text(const ContextManifest& manifest);
/// Throws Error where the text is none; `path` is for messages. Names are checked: a file lies in its folder.
ContextManifest parse_manifest(std::string_view text, const std::string& path);

/// Holds forward_i_json.json, which has the structure of qnn-context-binary-utility's output, against the graphs of the
/// context that it describes: names, inputs and outputs with their ids, types, dimensions, scale and signed offset, in
/// order. Throws Error with what was expected (the binary's) and what was found.
void check_context_json(std::string_view text, const std::string& path, std::span<const cxg_graph* const> graphs);

}  // namespace contexture
