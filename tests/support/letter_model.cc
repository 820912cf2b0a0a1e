#include "support/letter_model.h"

#include <algorithm>
#include <vector>

#include "files/gguf_writer.h"
#include "support/random_model.h"

namespace contexture {

void write_letter_model(const std::string& path, const std::string& chat_template, uint32_t seed, bool says_all) {
  std::vector<std::string> pieces = {"<unk>",    "<s>",           "</s>",    "<|system|>",
                                     "<|user|>", "<|assistant|>", "<|end|>", "\u2581"};
  std::vector<int64_t> types = {2, 3, 3, 3, 3, 3, 3, 1};
  for (char c = 'a'; c <= 'z'; ++c) {
    pieces.emplace_back(1, c);
    types.push_back(1);
  }
  const TemporaryFile bare;
  write_random_model({.vocabulary = pieces.size(), .tied = false, .seed = seed}, bare.path());
  ModelFile file = open_model(bare.path());
  StoredTensor& output = file.tensors.at(file.tensor_index.at("output.weight"));
  std::vector<std::byte> rows(output.data.begin(), output.data.end());
  // Logits of 0 for the control tokens: of the 27 others there is always a larger one.
  if (!says_all) std::fill_n(rows.begin(), rows.size() / pieces.size() * 7, std::byte{0});
  output.data = rows;
  Metadata& m = file.metadata;
  m.set_string("tokenizer.ggml.model", "llama");
  m.set_strings("tokenizer.ggml.tokens", pieces);
  m.set_floats("tokenizer.ggml.scores", std::vector<float>(pieces.size(), 0.f));
  m.set_ints("tokenizer.ggml.token_type", types);
  m.set_int("tokenizer.ggml.bos_token_id", 1);
  m.set_int("tokenizer.ggml.eos_token_id", 2);
  m.set_int("tokenizer.ggml.unknown_token_id", 0);
  m.set_bool("tokenizer.ggml.add_space_prefix", false);
  if (!chat_template.empty()) m.set_string("tokenizer.chat_template", chat_template);
  write_gguf(path, m, file.tensors);
}

}  // namespace contexture
