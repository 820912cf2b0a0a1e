#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "files/model_file.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace contexture::test {

inline const std::string kData = "../shared/data/";

/// For tests that read the data beside the project: reported as skipped where it is absent.
#define SKIP_WITHOUT(path) \
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs " << (path)

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// A vocabulary of the data folder, whatever its format.
inline Vocabulary open_vocabulary(const std::string& path) {
  if (path.ends_with(".gguf")) return vocabulary_from_metadata(open_model(path).metadata);
  return vocabulary_from_file(path);
}

/// Valid Unicode of all sorts: words, runs of spaces and newlines, digits, NUL, scripts, combining marks, emoji.
inline std::string random_text(std::mt19937& random, size_t characters) {
  struct Range {
    uint32_t low, high;
  };
  static constexpr Range kRanges[] = {
      {'a', 'z'},       {'a', 'z'},       {'A', 'Z'},         {' ', ' '},         {' ', ' '},       {'\t', '\r'},
      {'0', '9'},       {'!', '/'},       {0, 0x7F},          {0x80, 0x24F},      {0x300, 0x36F},   {0x370, 0x5FF},
      {0x900, 0xDFF},   {0x1780, 0x17FF}, {0x2000, 0x206F},   {0x2580, 0x2582},   {0x3000, 0x30FF}, {0x4E00, 0x9FFF},
      {0xAC00, 0xD7A3}, {0xE000, 0xFFFF}, {0x1F300, 0x1F6FF}, {0x10000, 0x10FFFF}};
  std::string text;
  while (characters > 0) {
    const Range range = kRanges[random() % std::size(kRanges)];
    const size_t run = std::min<size_t>(characters, 1 + random() % 6);
    for (size_t i = 0; i < run; ++i) append_utf8(text, range.low + random() % (range.high - range.low + 1));
    characters -= run;
  }
  return text;
}

inline std::string random_bytes(std::mt19937& random, size_t count) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) bytes += static_cast<char>(random());
  return bytes;
}

/// English-like: words of one to ten letters with the frequencies of English, and some punctuation.
inline std::string english_like(std::mt19937& random, size_t bytes) {
  static constexpr std::string_view kLetters = "etaoinshrdlucmfwypvbgkjqxzetaoinshrdluetaoinetaoieta";
  std::string text;
  while (text.size() < bytes) {
    for (size_t i = 1 + random() % 10; i > 0; --i) text += kLetters[random() % kLetters.size()];
    text += random() % 12 == 0 ? ".\n" : random() % 9 == 0 ? ", " : " ";
  }
  text.resize(bytes);
  return text;
}

}  // namespace contexture::test
