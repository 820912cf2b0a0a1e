#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "files/json_object.h"
#include "files/model_file.h"

namespace contexture {

/// Opens a Hugging Face model: a folder with config.json and model.safetensors, or model.safetensors.index.json and the
/// shards that it names. `path` is the folder, its config.json, the index, or a file of weights. Also read, where they
/// are there: generation_config.json, tokenizer_config.json, chat_template.json and chat_template.jinja. Throws Error.
///
/// Beside llama.cpp's keys and tensor names for the same model, these of our own:
///
///   ARCH.rope.style                     "halves" where llama.cpp's converter reorders the rows of Q and K, which these
///                                       files hold in the original order
///   ARCH.attention.sliding_window       also for Mistral (architecture llama)
///   ARCH.rope.scaling.type "llama3"     with .factor, .low_freq_factor, .high_freq_factor, .original_context_length,
///                                       in place of the tensor rope_freqs.weight
///   gemma2/3.attention.scale            factor of the scores
///   gemma3.rope.freq_base_swa           rope.freq_base of the layers with a window
///   gemma3.attention.sliding_window_pattern   every so many layers one has no window
///   tokenizer.end_token_ids             every token that ends an answer
///   tokenizer.bos_token, .eos_token     what templates mean by these: a token's text
///   general.sampling.temp, .top_k, .top_p     what the model's makers advise
///   blk.N.ffn_gate.E.weight             (and _up, _down) of expert E, one by one
/// Without a use for weights they may be missing, or pointers of Git LFS: the model then says so (ModelFile::absent).
ModelFile open_huggingface(const std::string& path, const ModelUse& use = {});

/// Whether a folder, or the folder of such a file, holds a Hugging Face model.
bool is_huggingface_folder(const std::string& path);

/// Its parts, one after the other. The configuration as metadata; the vectors that LongRoPE has there become tensors.
void read_huggingface_config(const JsonObject& config, ModelFile& model);
/// Token ids and advice on sampling.
void read_huggingface_tokens(const JsonObject& config, const JsonObject& generation, Metadata& metadata);
/// The chat template: a string, or a list of {"name", "template"}, of which "default" counts.
void read_huggingface_tokenizer_config(const JsonObject& tokenizer, Metadata& metadata);

}  // namespace contexture
