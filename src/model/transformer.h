#pragma once

#include <span>

#include "base/thread_pool.h"
#include "cache/cache.h"
#include "model/config.h"
#include "model/step.h"
#include "model/weights.h"
#include "model/workspace.h"

namespace contexture {

/// A model ready to run: its configuration and its weights. Immutable; what changes is handed in.
class Transformer {
 public:
  /// The file is not needed afterwards. Throws Error where the file holds no model that this program runs.
  explicit Transformer(const ModelFile& file, ThreadPool& pool);
  /// The same with one thread.
  explicit Transformer(const ModelFile& file);

  const ModelConfig& config() const { return config_; }
  const Weights& weights() const { return weights_; }
  CacheShape cache_shape(Format k, Format v) const;

  /// Of a text of up to so many tokens (rotation_border).
  RotationId rotation_of(size_t tokens) const { return rotation_of_text(rotation_border_, tokens); }
  std::optional<size_t> rotation_border() const { return rotation_border_; }

  /// Bytes of weights that one token reads: all matrices once, one row of the embedding.
  size_t bytes_per_token() const;

  /// One forward pass. Writes the step's K and V to the cache, and returns logits (rows that want them, vocabulary),
  /// in the order of the step, in workspace memory that the next pass overwrites. Takes any step that fits the
  /// workspace; token ids must be below config().vocabulary.
  std::span<const float> forward(const Step& step, Cache& cache, Workspace& workspace, ThreadPool& pool) const;

 private:
  ModelConfig config_;
  Weights weights_;
  std::optional<size_t> rotation_border_;
};

}  // namespace contexture
