// Any bytes as a compiled folder's manifest and as the JSON of one of its shards: they are read or Error is thrown. A
// manifest that is read names files that lie beside it, and layers that follow each other.

#include <cstdint>
#include <cstdlib>

#include "backends/static_graph/context_manifest.h"
#include "base/error.h"

namespace {

using namespace contexture;

void check(bool holds) {
  if (!holds) std::abort();
}

void check_name(const std::string& name) {
  check(!name.empty() && name[0] != '.' && name.find('/') == name.npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const ContextManifest manifest = parse_manifest(text, "fuzz.json");
    uint64_t layers = 0;
    for (const ContextManifest::Shard& shard : manifest.shards) {
      check_name(shard.binary.name);
      check_name(shard.json.name);
      check(shard.first_layer == layers);
      layers += shard.layers;
    }
    check(layers == manifest.layers);
  } catch (const Error&) {
  }
  try {
    const uint32_t dims[] = {1, 8, 16};
    const cxg_tensor input = {
        .id = 4, .name = "tokens", .type = CXG_INT_32, .rank = 2, .dims = dims, .scale = 0, .offset = 0};
    const cxg_tensor output = {
        .id = 9, .name = "logits", .type = CXG_UFIXED_16, .rank = 3, .dims = dims, .scale = 0.1f, .offset = -31143};
    const cxg_graph graph = {"kv_forward", 1, &input, 1, &output};
    const cxg_graph* const graphs[] = {&graph};
    check_context_json(text, "fuzz.json", graphs);
  } catch (const Error&) {
  }
  return 0;
}
