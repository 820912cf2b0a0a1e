#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/ranges.h>
#include <pcre2.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <new>

#include "base/error.h"
#include "text/utf8.h"

namespace contexture {
namespace {

/// The regular expressions are what each model publishes in its tokenizer.json (and llama.cpp groups under these
/// names). Three things are ours. `\s` is Unicode's White_Space, as in the engines they were written for (PCRE2's own
/// \s has U+180E too): compile() puts \p{wspace} in its place. Each must run in time linear in the text: see
/// kSpaceAtEnd. And where a match leaves text between matches, that is a word, so that GPT-2's last alternative `\s+`
/// may be left out or not.
constexpr const char* kGpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

constexpr const char* kQwen2 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// The same with marks as parts of words.
constexpr const char* kQwen35 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// Capitals begin words ("camelCase" is two).
constexpr const char* kTekken =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

constexpr const char* kGpt4o =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|"
    "'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'"
    "ll|'d)?"
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

constexpr const char* kSeedCoder =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

constexpr const char* kBailing =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
    "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+";

constexpr const char* kDeepseek3 =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// Han, hiragana, katakana.
constexpr const char* kHanAndKana = "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+";

/// What stands between spaces and full stops and commas of several scripts.
constexpr const char* kBloom = " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+";

constexpr const char* kDigit = "\\p{N}";
constexpr const char* kUpToThreeDigits = "\\p{N}{1,3}";
constexpr const char* kDigits = "\\p{N}+";
constexpr const char* kThreeDigits = "[0-9][0-9][0-9]";
constexpr const char* kNewline = "[\\r\\n]";

/// Published as `\s+$`, for which PCRE2's interpreter looks at a run of n spaces n times where something else follows
/// it (compiled code knows better). Newlines are words of their own by then, so that $ is the very end.
constexpr const char* kSpaceAtEnd = "(?<!\\s)\\s++\\z";

/// Han, and what else lies between (the upper end of the last range is the last Hangul block's).
constexpr const char* kEastAsian = "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+";

/// The letters that have a case, as of the Unicode version that DeepSeek LLM's file was made with.
constexpr const char* kDeepseekLetters =
    "\\s?["
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}"
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}"
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}"
    "\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}"
    "\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}"
    "\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}"
    "\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}"
    "\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}"
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
    "]+";
constexpr const char* kDeepseekPunctuation =
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+";

constexpr const char* kPunctuation = "[\\p{P}\\$\\+<=>\\^~\\|]+";
constexpr const char* kPunctuationAndBacktick = "[\\p{P}\\$\\+<=>\\^~\\|`]+";

struct Kind {
  std::vector<std::string> names;  ///< GGUF's, the usual one first
  std::vector<const char*> expressions;
  bool ignores_merges = false;
  bool begin_is_usual = false;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
       {kLlama3},
       true,
       true},
      {{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, {kLlama3}},
      {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "granite-docling", "gigachat", "a.x-4.0",
        "mellum", "gpt-neox"},
       {kGpt2}},
      {{"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo", "hunyuan", "grok-2"}, {kQwen2}},
      {{"qwen35"}, {kQwen35}},
      {{"tekken"}, {kTekken}, true, true},
      {{"gpt-4o", "llama4", "minimax-m2", "kanana2"}, {kGpt4o}},
      {{"deepseek-v3", "hunyuan-dense"}, {kUpToThreeDigits, kHanAndKana, kDeepseek3}},
      {{"seed-coder"}, {kSeedCoder}},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailing}},
      {{"bloom", "poro-chat", "gpt3-finnish"}, {kBloom}},
      {{"viking"}, {kBloom, kDigit}},
      {{"deepseek-llm"}, {kNewline, kDeepseekLetters, kDeepseekPunctuation, kSpaceAtEnd, kEastAsian, kDigits}},
      {{"deepseek-coder"}, {kNewline, "\\s?\\p{L}+", "\\s?\\p{P}+", kEastAsian, kDigit}},
      {{"falcon"}, {kPunctuationAndBacktick, kGpt2, kThreeDigits}},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"}, {kDigit, kGpt2}},
      {{"default"}, {kPunctuation, kGpt2, kDigits, kThreeDigits}},
  };
  return all;
}

const Kind* find_kind(const std::string& name) {
  for (const Kind& kind : kinds()) {
    for (const std::string& known : kind.names) {
      if (name == known) return &kind;
    }
  }
  return nullptr;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

/// An expression as tokenizer.json may write it: `\x{4E00}` and the character are the same, and so are `\n` and a
/// line's end.
std::string as_published(std::string expression) {
  if (expression == kSpaceAtEnd) return "\\s+$";
  for (size_t at; (at = expression.find("\\x{")) != expression.npos;) {
    const size_t end = expression.find('}', at);
    std::string character;
    append_utf8(character, std::stoul(expression.substr(at + 3, end - at - 3), nullptr, 16));
    expression.replace(at, end + 1 - at, character);
  }
  return replaced(replaced(expression, "\r", "\\r"), "\n", "\\n");
}

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

/// What matching needs besides the expression.
struct Matcher {
  std::unique_ptr<pcre2_match_data, Free> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Free> context{pcre2_match_context_create(nullptr)};

  /// PCRE2's own limit on steps would refuse a run of ten million spaces; this one grows with the text. It is a net:
  /// the expressions above are linear.
  explicit Matcher(size_t text_size) {
    if (!match || !context) throw std::bad_alloc();
    const size_t steps = std::max<size_t>(10'000'000, 4 * text_size);
    pcre2_set_match_limit(context.get(), static_cast<uint32_t>(std::min<size_t>(steps, UINT32_MAX)));
  }
};

class Regex {
 public:
  Regex(const char* published, bool compiled) {
    const std::string expression = replaced(replaced(published, "\\s", "\\p{wspace}"), "\\S", "\\P{wspace}");
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr));
    if (!code_) fail("PCRE2 refuses {} at {} (error {}); it is older than 10.40", expression, at, error);
    if (compiled) pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where that fails, PCRE2 interprets
  }

  /// Appends the matches in `text` and what lies between them.
  void split(std::string_view text, const Matcher& matcher, std::vector<std::string_view>& words) const {
    size_t at = 0;
    while (at < text.size()) {
      const int count = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                    PCRE2_NO_UTF_CHECK, matcher.match.get(), matcher.context.get());
      if (count == PCRE2_ERROR_NOMATCH) break;
      if (count < 0) fail("the text cannot be split into words (PCRE2 error {}); give it in smaller parts", count);
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(matcher.match.get());
      assert(range[0] >= at && range[1] > range[0]);
      if (range[0] > at) words.push_back(text.substr(at, range[0] - at));
      words.push_back(text.substr(range[0], range[1] - range[0]));
      at = range[1];
    }
    if (at < text.size()) words.push_back(text.substr(at));
  }

 private:
  std::unique_ptr<pcre2_code, Free> code_;
};

}  // namespace

const char* const Pretokenizer::kByteLevelExpression = kGpt2;

struct Pretokenizer::Impl {
  const Kind* kind;
  std::vector<Regex> expressions;
};

Pretokenizer::Pretokenizer(const std::string& name, bool compiled) {
  const Kind* kind = find_kind(name);
  if (kind == nullptr) fail("the pre-tokenizer \"{}\" is not known; known are {}", printable(name), names());
  auto impl = std::make_unique<Impl>();
  impl->kind = kind;
  for (const char* expression : kind->expressions) impl->expressions.emplace_back(expression, compiled);
  impl_ = std::move(impl);
}

Pretokenizer::~Pretokenizer() = default;

std::vector<std::string_view> Pretokenizer::split(std::string_view text) const {
  const Matcher matcher(text.size());
  std::vector<std::string_view> words{text}, finer;
  for (const Regex& expression : impl_->expressions) {
    finer.clear();
    for (const std::string_view word : words) expression.split(word, matcher, finer);
    words.swap(finer);
  }
  return words;
}

bool Pretokenizer::ignores_merges() const {
  return impl_->kind->ignores_merges;
}

bool Pretokenizer::is_known(const std::string& name) {
  return find_kind(name) != nullptr;
}

std::optional<std::string> Pretokenizer::find_published(const std::vector<std::string>& expressions,
                                                        bool ignores_merges) {
  const auto same = [](const std::string& theirs, const char* ours) {
    return replaced(replaced(theirs, "\r", "\\r"), "\n", "\\n") == as_published(ours);
  };
  std::optional<std::string> name;
  for (const Kind& kind : kinds()) {
    if (!std::equal(expressions.begin(), expressions.end(), kind.expressions.begin(), kind.expressions.end(), same)) {
      continue;
    }
    if (!name || kind.ignores_merges == ignores_merges) name = kind.names[0];
    if (kind.ignores_merges == ignores_merges) break;
  }
  return name;
}

std::string Pretokenizer::names() {
  std::vector<std::string> all;
  for (const Kind& kind : kinds()) all.insert(all.end(), kind.names.begin(), kind.names.end());
  return fmt::format("{}", fmt::join(all, ", "));
}

bool Pretokenizer::begin_is_usual(const std::string& name) {
  const Kind* kind = find_kind(name);
  return kind != nullptr && kind->begin_is_usual;
}

}  // namespace contexture
