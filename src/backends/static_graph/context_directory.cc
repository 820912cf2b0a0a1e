#include "backends/static_graph/context_directory.h"

#include <filesystem>

#include "base/error.h"

namespace contexture {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

ContextDirectory::ContextDirectory(const std::string& path) : path_(path) {
  const std::string shown = printable(path, 400), manifest = path + "/" + kManifestName;
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    fail("{} is no folder; give --context-dir one that compile wrote", shown);
  }
  if (!std::filesystem::exists(manifest, error)) {
    fail("{}: expected {}, found none; was it written by compile, and to the end?", shown, kManifestName);
  }
  manifest_ = parse_manifest(text_of(MappedFile(manifest).bytes()), manifest);
  const size_t count = manifest_.shards.size();
  for (const ContextManifest::Shard& shard : manifest_.shards) {
    binaries_.push_back(open(shard.binary));
    jsons_.push_back(open(shard.json));
  }
  if (!manifest_.tokenizer.name.empty()) (void)open(manifest_.tokenizer);
  if (std::filesystem::exists(path + "/" + shard_binary_name(count), error)) {
    fail("{}: expected {} shards, found {} too; which of two models is it?", shown, count, shard_binary_name(count));
  }
}

MappedFile ContextDirectory::open(const ContextManifest::File& file) const {
  const std::string path = path_ + "/" + file.name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    fail("{}: expected {} as {} says, found none; copy the folder again", printable(path_, 400), printable(file.name),
         kManifestName);
  }
  MappedFile map(path);
  if (map.bytes().size() != file.bytes) {
    fail("{}: expected {} bytes, found {}; copy the folder again", printable(path, 400), file.bytes,
         map.bytes().size());
  }
  if (const ContextManifest::File found = identify_bytes(file.name, map.bytes()); found.xxh3 != file.xxh3) {
    fail("{}: expected the hash {}, found {}; copy the folder again", printable(path, 400), printable(file.xxh3),
         found.xxh3);
  }
  return map;
}

std::vector<ShardBytes> ContextDirectory::shards() const {
  std::vector<ShardBytes> shards;
  for (size_t i = 0; i < binaries_.size(); ++i)
    shards.push_back({manifest_.shards[i].binary.name, binaries_[i].bytes()});
  return shards;
}

std::optional<std::string> ContextDirectory::tokenizer_path() const {
  if (manifest_.tokenizer.name.empty()) return std::nullopt;
  return path_ + "/" + manifest_.tokenizer.name;
}

void ContextDirectory::check(const StaticRunner& runner) const {
  const StaticShape& shape = runner.shape();
  const std::string where = fmt::format("{}/{}", printable(path_, 400), kManifestName);
  const auto same = [&](std::string_view what, const auto& expected, const auto& found) {
    if (expected != found) fail("{}: expected {} {}, found {} in the binaries", where, what, expected, found);
  };
  const bool prefills = shape.prefill_tokens > 0;
  same("context", manifest_.context, shape.context);
  same("prefill_length", manifest_.prefill_length, shape.prefill_tokens);
  same("mode", manifest_.mode, std::string(!shape.decodes ? "prefill" : prefills ? "hybrid" : "kv"));
  same("kv_layout", manifest_.kv_layout, std::string(shape.kv.per_head ? "per-head" : "per-layer"));
  same("kv_bits", manifest_.kv_bits, 8 * shape.kv.element_bytes);
  for (size_t i = 0; i < manifest_.shards.size(); ++i) {
    same(fmt::format("shard {} layers", i), manifest_.shards[i].layers, shape.layers_of_shard[i]);
    check_context_json(text_of(jsons_[i].bytes()), jsons_[i].path(), runner.graphs(i));
  }
}

}  // namespace contexture
