#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "files/model_file.h"
#include "model/transformer.h"

namespace contexture {

/// A 128-bit hash (XXH3). Tells damage and mistakes, not malice.
struct Digest {
  uint64_t low = 0, high = 0;
  bool operator==(const Digest&) const = default;
};

/// What decides the K and V that a model computes: its configuration, and every tensor's name, shape, format and bytes.
/// Reads all weights once, on all threads; the result does not depend on how many.
Digest identify_model(const ModelFile& file, ThreadPool& pool);

/// Of the frequencies by which a model rotates Q and K of a text of this rotation.
uint64_t identify_rope(const Transformer& model, RotationId rotation);

}  // namespace contexture
