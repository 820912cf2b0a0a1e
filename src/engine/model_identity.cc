#include "engine/model_identity.h"

#include <xxhash.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace contexture {
namespace {

/// Collects what is hashed; texts and lists with their lengths, so that no two ways to cut them look alike.
class Hasher {
 public:
  Hasher() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }

  template <class Number>
  requires std::is_arithmetic_v<Number>
  void add(Number value) { XXH3_128bits_update(state_.get(), &value, sizeof(value)); }
  void add(const std::string& text) {
    add(text.size());
    XXH3_128bits_update(state_.get(), text.data(), text.size());
  }
  template <class Item>
  void add(const std::vector<Item>& items) {
    add(items.size());
    for (const Item& item : items) add(item);
  }
  void add(const Digest& digest) {
    add(digest.low);
    add(digest.high);
  }
  void add(const MetadataValue& value) {
    add(value.data.index());
    std::visit([&](const auto& v) { add(v); }, value.data);
  }
  Digest digest() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return {hash.low64, hash.high64};
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

/// Bytes that one thread hashes at a time; a constant, so that the result is one.
constexpr size_t kPiece = size_t{4} << 20;

std::vector<Digest> hash_pieces(const std::vector<std::span<const std::byte>>& pieces, ThreadPool& pool) {
  std::vector<Digest> digests(pieces.size());
  pool.run(pieces.size(), [&](size_t i, int) {
    const XXH128_hash_t hash = XXH3_128bits(pieces[i].data(), pieces[i].size());
    digests[i] = {hash.low64, hash.high64};
  });
  return digests;
}

}  // namespace

Digest identify_model(const ModelFile& file, ThreadPool& pool) {
  Hasher hasher;
  const std::string architecture = file.metadata.get_string("general.architecture", "");
  hasher.add(architecture);
  std::map<std::string, const MetadataValue*> configuration;
  for (const auto& [key, value] : file.metadata.entries()) {
    if (key.starts_with(architecture + ".")) configuration.emplace(key, &value);
  }
  for (const auto& [key, value] : configuration) {
    hasher.add(key);
    hasher.add(*value);
  }
  std::vector<std::span<const std::byte>> pieces;
  for (const auto& [tensor_name, place] : file.tensor_index) {  // by name, whatever the file's order
    const StoredTensor& tensor = file.tensors[place];
    hasher.add(tensor.name);
    hasher.add(std::string(name(tensor.format)));
    hasher.add(tensor.shape);
    for (size_t at = 0; at < tensor.data.size(); at += kPiece) {
      pieces.push_back(tensor.data.subspan(at, std::min(kPiece, tensor.data.size() - at)));
    }
  }
  hasher.add(hash_pieces(pieces, pool));
  return hasher.digest();
}

uint64_t identify_rope(const Transformer& model, RotationId rotation) {
  Hasher hasher;
  hasher.add(model.weights().rope_frequencies.at(rotation));
  for (const RopeConfig& rope : model.config().ropes) hasher.add(rope.magnitude);
  return hasher.digest().low;
}

}  // namespace contexture
