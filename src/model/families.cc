#include "model/families.h"

#include "base/error.h"

namespace contexture {
namespace {

constexpr Family list[] = {
    {"llama", configure_llama},      // Llama 1 to 3.2, Mistral, Mixtral, TinyLlama, SmolLM, llama2.c's stories
    {"qwen2", configure_qwen2},      // Qwen 2 and 2.5
    {"qwen3", configure_qwen3},      //
    {"qwen3moe", configure_qwen3},   // the same with experts
    {"smollm3", configure_smollm3},  //
    {"granite", configure_granite},  //
    {"phi3", configure_phi3},        // Phi-3, 3.5 and 4
    {"gemma", configure_gemma},      //
    {"gemma2", configure_gemma2},    //
    {"gemma3", configure_gemma3},    //
};

}  // namespace

std::span<const Family> families() {
  return list;
}

ModelConfig read_config(const Metadata& metadata) {
  const std::string architecture = metadata.get_string("general.architecture");
  for (const Family& family : list) {
    if (family.architecture != architecture) continue;
    const FamilyKeys keys(metadata);
    const ModelConfig config = family.configure(keys);
    keys.refuse_unread(config);
    return config;
  }
  std::string known;
  for (const Family& family : list) known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  fail("unknown model family '{}'; this version runs: {}", printable(architecture), known);
}

}  // namespace contexture
