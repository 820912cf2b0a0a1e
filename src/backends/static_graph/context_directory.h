#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/static_graph/context_manifest.h"
#include "backends/static_graph/static_runner.h"
#include "base/mapped_file.h"

namespace contexture {

/// A folder that `compile` wrote, opened: every file that the manifest names is there, as long as it says and with the
/// bytes that it says. What is wrong is an Error with what was expected and what was found.
class ContextDirectory {
 public:
  explicit ContextDirectory(const std::string& path);

  const std::string& path() const { return path_; }
  const ContextManifest& manifest() const { return manifest_; }
  /// The shards' bytes, as long as this lives.
  std::vector<ShardBytes> shards() const;
  /// Nothing where the model has no tokenizer.
  std::optional<std::string> tokenizer_path() const;

  /// Holds manifest and JSON files against the graphs in the binaries, as the backend sees them.
  void check(const StaticRunner& runner) const;

 private:
  MappedFile open(const ContextManifest::File& file) const;

  std::string path_;
  ContextManifest manifest_;
  std::vector<MappedFile> binaries_, jsons_;
};

}  // namespace contexture
