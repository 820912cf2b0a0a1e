#include "model/families.h"

#include "base/error.h"

namespace contexture {
namespace {

constexpr Family list[] = {
    {"llama", configure_llama},
};

}  // namespace

std::span<const Family> families() {
  return list;
}

ModelConfig read_config(const Metadata& metadata) {
  const std::string architecture = metadata.get_string("general.architecture");
  for (const Family& family : list) {
    if (family.architecture == architecture) return family.configure(metadata);
  }
  std::string known;
  for (const Family& family : list) known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  fail("unknown model family '{}'; this version runs: {}", printable(architecture), known);
}

}  // namespace contexture
