#include "text/pretokenizer_kinds.h"

namespace contexture {

namespace split_expressions {

const char* const kByteLevel = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char* const kDigit = "\\p{N}";
const char* const kDigits = "\\p{N}+";
/// ByteLevel writes some bytes as superscripts and fractions, which are numbers too.
const char* const kDigitsOfBytes = "[0-9\\xB2\\xB3\\xB9\\xBC-\\xBE]+";
const char* const kPunctuationRuns = "[\\p{P}\\$\\+<=>\\^~\\|`]+";
const char* const kPunctuationMarks = "[\\p{P}\\$\\+<=>\\^~\\|`]";

}  // namespace split_expressions

namespace {

using namespace split_expressions;

/// The regular expressions are what each model publishes in its tokenizer.json (and llama.cpp groups under these
/// names). Each must run in time linear in the text, which some do not as published: then the linear one stands first
/// and the published one after it. Where a match leaves text between matches, that is a word, so that GPT-2's last
/// alternative `\s+` may be left out or not.
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

constexpr const char* kUpToThreeDigits = "\\p{N}{1,3}";
constexpr const char* kThreeDigits = "[0-9][0-9][0-9]";
constexpr const char* kNewline = "[\\r\\n]";

/// PCRE2's interpreter looks at a run of n spaces n times for the published one where something else follows it
/// (compiled code knows better). Newlines are words of their own by then, so that $ is the very end.
constexpr SplitExpression kSpaceAtEnd = {"(?<!\\s)\\s++\\z", "\\s+$"};

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

/// Llama 3's but for runs of digits, which were cut before.
constexpr const char* kMinicpm5 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// Qwen 2's without English contractions.
constexpr const char* kUfakzeka =
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// Llama 3's with spaces in powers of two. Within a run of spaces, which has been looked through to its end once, no
/// newline is looked for again.
constexpr SplitExpression kJais2 = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|(?<![^\\S\\r\\n])\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)"
    "|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)"
    "|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"};

/// Words with single spaces between them are one. The possessive form takes the same: nothing follows that a shorter
/// match could serve.
constexpr SplitExpression kExaoneMoe = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"};

/// DeepSeek V3's with newlines one by one.
constexpr const char* kSpark =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+";

/// GPT-4o's with Han apart; published with `&&[^\p{Han}]`, which PCRE2 has not: here the classes name what they leave
/// out. (A bare \p{Han} is more to PCRE2 than the script.)
constexpr SplitExpression kKimiK2 = {
    "[\\p{sc:Han}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{Ll}\\p{sc:Han}]*"
    "[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{Lu}\\p{Lt}\\p{sc:Han}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{Ll}\\p{sc:Han}]+"
    "[^\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{Lu}\\p{Lt}\\p{sc:Han}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[\\p{Han}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"};

/// GPT-4o's with single digits; before it Hangul, wide punctuation, bopomofo, and Han with kana stand alone.
constexpr const char* kYoutuScripts =
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+"
    "|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}"
    "\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+";
constexpr const char* kYoutu =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|"
    "'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'"
    "ll|'d)?"
    "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// Digits in threes from the right, where no letter follows them. Published, the rest of a run is looked through for
/// every group; here for the first, and what follows a group is one (\G).
constexpr SplitExpression kThreesToWordEnd = {
    "(?<!\\p{Nd})\\p{Nd}{1,3}(?=(?:\\p{Nd}{3})*+(?![\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]))|\\G(?<=\\p{Nd})\\p{Nd}{3}",
    "\\d{1,3}(?=(?:\\d{3})*\\b)"};
/// The same as places to cut at: what is left over on the left is no match.
constexpr SplitExpression kThreesToEnd = {"\\G(?<=\\p{Nd})\\p{Nd}{3}|\\p{Nd}{3}(?=(?:\\p{Nd}{3})*+(?!\\p{Nd}))",
                                          "(?=(\\d{3})+(?!\\d))"};
/// ... and whatever follows. (llama.cpp computes this one; it also joins what precedes the digits to the first group,
/// which tells apart runs of spaces only.)
constexpr const char* kThrees = "(?<!\\p{N})\\p{N}{1,3}(?=(?:\\p{N}{3})*+(?!\\p{N}))|\\G(?<=\\p{N})\\p{N}{3}";

/// Scripts of East and South-East Asia.
constexpr const char* kAfmoeScripts =
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}\\x{FF65}-\\x{"
    "FF9F}"
    "\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{E7F}\\x{E80}-\\x{EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}"
    "\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+";

/// Chameleon's names of images, and the spaces of code.
constexpr const char* kSentinel = "<sentinel:[0-9]+>";
constexpr SplitExpression kImage = {"IMGIMG[A-I]{1,4}Z", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"};
constexpr SplitExpression kCodeSpaces = {"[\\t\\n]|    |  ", "([\\t\\n]|    |  )"};

constexpr const char* kLines = "[^\\n]+|[\\n]+";

}  // namespace

const std::vector<PretokenizerKind>& pretokenizer_kinds() {
  static const std::vector<PretokenizerKind> all = {
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
       {{kLlama3}},
       true,
       true},
      {{"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"}, {{kLlama3}}},
      {{"gpt-2",           "phi-2",      "mpt",        "olmo",         "jais",        "exaone4",    "trillion",
        "granite-docling", "gigachat",   "a.x-4.0",    "mellum",       "gpt-neox",    "jina-es",    "jina-de",
        "jina-v2-es",      "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe", "modern-bert"},
       {{kByteLevel}}},
      {{"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo", "hunyuan", "grok-2", "f2llmv2", "solar-open"},
       {{kQwen2}}},
      {{"qwen35"}, {{kQwen35}}},
      {{"tekken"}, {{kTekken}}, true, true},
      {{"gpt-4o", "llama4", "minimax-m2", "kanana2", "talkie"}, {{kGpt4o}}},
      {{"granite-embed-multi-97m"}, {{kGpt4o}}, true},
      {{"tiny_aya", "cohere2moe"}, {kThreesToWordEnd, {kGpt4o}}},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, {{kUpToThreeDigits}, {kHanAndKana}, {kDeepseek3}}},
      {{"spark2_5"}, {{kUpToThreeDigits}, {kHanAndKana}, {kSpark}, {kDigit}}},
      {{"afmoe"}, {{kThrees}, {kAfmoeScripts}, {kDeepseek3}}},
      {{"youtu"}, {{kYoutuScripts}, {kYoutu}}, true},
      {{"kimi-k2"}, {kKimiK2}},
      {{"superbpe"}, {{kDigits}, kThreesToEnd}},
      {{"jais-2"}, {kJais2}},
      {{"minicpm5"}, {{kUpToThreeDigits}, {kMinicpm5}}, true},
      {{"exaone-moe"}, {kExaoneMoe}},
      {{"laguna"}, {{kLines}, {kQwen2}}},
      {{"ufakzeka"}, {{kUfakzeka}}},
      {{"seed-coder"}, {{kSeedCoder}}},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, {{kBailing}}},
      {{"bloom", "poro-chat", "gpt3-finnish"}, {{kBloom}}},
      {{"viking"}, {{kBloom}, {kDigit}}},
      {{"chameleon"}, {{kSentinel}, kImage, kCodeSpaces, {kDigit}, {kPunctuationMarks}, {kByteLevel}}, false, true},
      {{"deepseek-llm"},
       {{kNewline}, {kDeepseekLetters}, {kDeepseekPunctuation}, kSpaceAtEnd, {kEastAsian}, {kDigits}}},
      {{"deepseek-coder"}, {{kNewline}, {"\\s?\\p{L}+"}, {"\\s?\\p{P}+"}, {kEastAsian}, {kDigit}}},
      {{"falcon"},
       {{kPunctuationRuns},
        {kByteLevel},
        {kDigitsOfBytes, nullptr, Regex::Of::bytes},
        {kThreeDigits, nullptr, Regex::Of::bytes}}},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
       {{kDigit}, {kByteLevel}}},
      {{"default"}, {{kPunctuation}, {kByteLevel}, {kDigits}, {kThreeDigits}}},
  };
  return all;
}

}  // namespace contexture
