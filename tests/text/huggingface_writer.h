#pragma once

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/byte_bpe.h"
#include "text/utf8.h"
#include "text_fixtures.h"

namespace contexture::test {

/// The pre-tokenizers as the models publish them: GPT-2, Llama 3, DeepSeek Coder.
inline const std::string kGpt2Json =
    R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";

/// A Sequence of Splits, given as JSON strings, and ByteLevel.
inline std::string splits_json(const std::vector<std::string>& expressions, const char* behavior = "Isolated",
                               bool invert = false) {
  nlohmann::json parts = nlohmann::json::array();
  for (const std::string& expression : expressions) {
    parts.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", behavior}, {"invert", invert}});
  }
  parts.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return nlohmann::json{{"type", "Sequence"}, {"pretokenizers", parts}}.dump();
}

inline const std::string kLlama3Json = splits_json(
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
inline const std::string kDeepseekCoderJson =
    splits_json({"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", R"(\p{N})"});

/// Llama 2's, as older files have it: two normalizers and no pre-tokenizer.
inline const std::string kMarksJson =
    R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})";

/// The model of a small tokenizer.json: <unk> (0), <s>, </s>, ▁, a, b (5), ▁a, ab, ▁▁ (8), <0x0A> (9).
inline nlohmann::json small_model_json() {
  return nlohmann::json::parse(R"({
      "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6, "ab": 7, "▁▁": 8, "<0x0A>": 9},
      "merges": [["▁", "▁"], ["a", "b"], ["▁", "a"]]})");
}

/// {"a": 0, "b": 1, ...}, the tables, and the special pieces as added tokens. Everything else is for the caller.
inline nlohmann::json huggingface_json(const Vocabulary& vocabulary, bool merges_as_pairs = false) {
  using nlohmann::json;
  json vocab = json::object(), added = json::array(), merges = json::array();
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const PieceType type = vocabulary.types[id];
    const auto contains = [&](const std::vector<TokenId>& ids) { return std::count(ids.begin(), ids.end(), id) > 0; };
    if (type == PieceType::normal || type == PieceType::byte) {
      vocab[vocabulary.pieces[id]] = id;
    } else if (type != PieceType::unused) {
      added.push_back({{"id", id},
                       {"content", vocabulary.pieces[id]},
                       {"single_word", false},
                       {"lstrip", contains(vocabulary.strips_left)},
                       {"rstrip", contains(vocabulary.strips_right)},
                       {"normalized", false},
                       {"special", type != PieceType::user_defined}});
    }
  }
  for (const std::string& merge : vocabulary.merges) {
    const size_t space = merge.find(' ', 1);
    if (merges_as_pairs) {
      merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
    } else {
      merges.push_back(merge);
    }
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

inline size_t characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

/// The merges of a vocabulary with scores, in the order in which Hugging Face's converter lists them: by falling score
/// of the result, then by falling length of the left and of the right part.
inline std::vector<std::string> merges_by_score(const Vocabulary& vocabulary) {
  struct Merge {
    float score;
    size_t left_size, right_size;
    std::string text;
  };
  std::map<std::string, TokenId> ids;
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (vocabulary.types[id] == PieceType::normal) ids.emplace(vocabulary.pieces[id], static_cast<TokenId>(id));
  }
  std::vector<Merge> merges;
  for (const auto& [piece, id] : ids) {
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      const std::string left = piece.substr(0, cut), right = piece.substr(cut);
      if (!ids.contains(left) || !ids.contains(right)) continue;
      merges.push_back({vocabulary.scores[id], characters(left), characters(right), left + " " + right});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(a.score, a.left_size, a.right_size) > std::tie(b.score, b.left_size, b.right_size);
  });
  std::vector<std::string> texts;
  for (Merge& merge : merges) texts.push_back(std::move(merge.text));
  return texts;
}

/// Llama 2's tokenizer.json, made of its vocabulary.
inline nlohmann::json metaspace_json(Vocabulary vocabulary, bool merges_as_pairs = false) {
  vocabulary.merges = merges_by_score(vocabulary);
  nlohmann::json file = huggingface_json(vocabulary, merges_as_pairs);
  file["normalizer"] = nlohmann::json::parse(kMarksJson);
  file["model"]["byte_fallback"] = true;
  file["model"]["fuse_unk"] = true;
  file["model"]["unk_token"] = "<unk>";
  file["model"]["vocab"]["<unk>"] = 0;
  return file;
}

/// A tokenizer.json of a vocabulary in the data folder, read again.
inline Vocabulary through_json(const Vocabulary& vocabulary) {
  nlohmann::json file;
  if (vocabulary.algorithm == Vocabulary::Algorithm::sentencepiece_bpe) {
    file = metaspace_json(vocabulary);
  } else {
    Vocabulary listed = vocabulary;
    if (listed.merges.empty()) listed.merges = byte_bpe_merges_by_id(vocabulary);
    file = huggingface_json(listed, /*merges_as_pairs=*/true);
    const bool is_llama3 = vocabulary.pretokenizer == "llama-bpe";
    file["model"]["ignore_merges"] = is_llama3;
    file["pre_tokenizer"] = nlohmann::json::parse(is_llama3                            ? kLlama3Json
                                                  : vocabulary.pretokenizer == "gpt-2" ? kGpt2Json
                                                                                       : kDeepseekCoderJson);
  }
  if (vocabulary.add_begin) {
    const std::string& begin = vocabulary.pieces[*vocabulary.begin];
    file["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", {{{"SpecialToken", {{"id", begin}}}}, {{"Sequence", {{"id", "A"}}}}}},
                              {"special_tokens", {{begin, {{"ids", {*vocabulary.begin}}}}}}};
  }
  const std::string text = file.dump();
  return vocabulary_from_bytes(std::as_bytes(std::span(text)), "tokenizer.json");
}

}  // namespace contexture::test
