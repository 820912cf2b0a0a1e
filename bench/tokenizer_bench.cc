#include <benchmark/benchmark.h>

#include <filesystem>
#include <random>
#include <string>

#include "files/model_file.h"
#include "text/tokenizer.h"

/// How fast a prompt becomes tokens: English-like words, and the shapes that make a careless tokenizer quadratic. Run
/// from the project root; vocabularies are read from ../shared/data, and one that is absent is left out.
namespace {

using namespace contexture;

constexpr size_t kTextSize = 1'000'000;

std::string words() {
  constexpr std::string_view kLetters = "etaoinshrdlucmfwypvbgkjqxzetaoinshrdluetaoinetaoieta";
  std::mt19937 random(1);
  std::string text;
  while (text.size() < kTextSize) {
    for (size_t i = 1 + random() % 10; i > 0; --i) text += kLetters[random() % kLetters.size()];
    text += random() % 12 == 0 ? ".\n" : random() % 9 == 0 ? ", " : " ";
  }
  return text;
}

std::string one_word() {
  std::mt19937 random(2);
  std::string text;
  while (text.size() < kTextSize) text += static_cast<char>('a' + random() % 26);
  return text;
}

Vocabulary open_vocabulary(const std::string& path) {
  if (path.ends_with(".gguf")) return vocabulary_from_metadata(open_model(path).metadata);
  return vocabulary_from_file(path);
}

void encode(benchmark::State& state, const std::string& path, const std::string& text) {
  const Tokenizer tokenizer(open_vocabulary(path));
  size_t tokens = 0;
  for (auto _ : state) tokens = tokenizer.encode(text).size();
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.counters["bytes/token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}

void open(benchmark::State& state, const std::string& path) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer(open_vocabulary(path)).size());
}

const bool registered = [] {
  const std::pair<const char*, std::string> kTexts[] = {{"words", words()},
                                                        {"one word", one_word()},
                                                        {"one letter", std::string(kTextSize, 'a')},
                                                        {"spaces", std::string(kTextSize, ' ')},
                                                        {"digits", std::string(kTextSize, '7')}};
  for (const char* name : {"llama2/tokenizer.model", "llama3/tokenizer.model", "vocab/ggml-vocab-gpt-2.gguf",
                           "vocab/ggml-vocab-deepseek-coder.gguf"}) {
    const std::string path = std::string("../shared/data/") + name;
    if (!std::filesystem::exists(path)) continue;
    benchmark::RegisterBenchmark((std::string("open/") + name).c_str(), open, path)->Unit(benchmark::kMillisecond);
    for (const auto& [kind, text] : kTexts) {
      const std::string title = std::string("encode/") + name + "/" + kind;
      benchmark::RegisterBenchmark(title.c_str(), encode, path, text)->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace
