#include "text/tokenizer.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "base/error.h"
#include "text/byte_bpe.h"
#include "text/nfc.h"
#include "text/regex.h"
#include "text/sentencepiece_bpe.h"
#include "text/special_tokens.h"
#include "text/utf8.h"

namespace contexture {
namespace {

/// Symbols count bytes in 32 bits; this leaves room for the space prefix, and no prompt is that long.
constexpr size_t kMaxText = size_t{1} << 30;

using Algorithm = std::variant<SentencePieceBpe, ByteBpe>;

Algorithm make_algorithm(const Vocabulary& vocabulary) {
  if (vocabulary.algorithm == Vocabulary::Algorithm::byte_bpe)
    return Algorithm(std::in_place_type<ByteBpe>, vocabulary);
  return Algorithm(std::in_place_type<SentencePieceBpe>, vocabulary);
}

bool contains(std::span<const TokenId> ascending, TokenId id) {
  return std::binary_search(ascending.begin(), ascending.end(), id);
}

/// Whether what lies from `begin` to `end` of a text touches a letter, a digit, a mark or the like.
bool touches_word(std::string_view text, size_t begin, size_t end) {
  static const Regex word("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]");
  const auto starts = [&](size_t at) {
    const size_t size = next_utf8(text.substr(at)).size;
    return valid_utf8_prefix(text.substr(at, size)) == size && word.starts(text.substr(at, size));
  };
  size_t before = begin;
  while (before > 0 && begin - before < 4 && (before == begin || (text[before] & 0xC0) == 0x80)) --before;
  return (before < begin && starts(before)) || (end < text.size() && starts(end));
}

/// Cuts the special pieces out of a text, with the white space that they swallow: visit(part, where it begins) for what
/// lies between them, and their ids into `ids`. What one has swallowed is looked through for the next all the same, as
/// Hugging Face's tokenizers do it. What touches `content` is no control piece, and none that is `guarded`.
template <typename Visit>
void cut_text(std::string_view text, std::span<const ByteRange> content, std::span<const TokenId> guarded,
              const SpecialTokens& specials, const Vocabulary& vocabulary, std::vector<TokenId>& ids, Visit visit) {
  const auto counts = [&](const SpecialTokens::Match& match) {
    const bool is_kept = vocabulary.types[match.id] == PieceType::control || contains(guarded, match.id);
    return !is_kept || !touches(content, match.at, match.at + match.size);
  };
  size_t part = 0;  // where what lies before the next special piece begins
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = content.empty() ? specials.find(text, at) : specials.find(text, at, counts);
    if (match.size == 0) break;
    at = match.at + match.size;
    if (contains(vocabulary.single_words, match.id) && touches_word(text, match.at, at)) continue;
    if (part < match.at) {
      std::string_view before = text.substr(part, match.at - part);
      if (contains(vocabulary.strips_left, match.id)) before.remove_suffix(white_space_suffix(before));
      if (!before.empty()) visit(before, part);
    }
    ids.push_back(match.id);
    part = at;
    if (contains(vocabulary.strips_right, match.id)) part += white_space_prefix(text.substr(at));
  }
  if (part < text.size()) visit(text.substr(part), part);
}

Vocabulary checked(Vocabulary vocabulary) {
  check_vocabulary(vocabulary, "vocabulary");
  return vocabulary;
}

}  // namespace

/// Special pieces by where they are looked for: in the text as it is given, and in what is left, normalized.
struct Specials {
  SpecialTokens given, normalized;
  bool has_normalized = false;
};

/// Where a stretch of text stands: where a text starts, where one goes on, or behind a special piece.
enum class Place { start, middle, behind_special };

/// A stretch of a text, and which of its bytes are content.
struct Part {
  std::string_view text;
  std::vector<ByteRange> content;
  std::span<const TokenId> guarded;  // EncodeOptions
  Place place;

  /// Of a stretch of it from this byte on.
  Place place_of(size_t at) const { return at == 0 ? place : Place::behind_special; }
};

/// Where content lies once a text has been changed. A border is found by what becomes of all that is before it.
template <typename Change>
std::vector<ByteRange> content_after(const Part& part, Change change) {
  const auto place = [&](size_t at) { return change(std::string(part.text.substr(0, at)) + "x").size() - 1; };
  std::vector<ByteRange> content;
  for (const ByteRange& range : part.content) content.push_back({place(range.begin), place(range.end)});
  return content;
}

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  Algorithm algorithm;
  std::vector<std::string> bytes;  ///< by id: what decode() writes
  Specials user_defined;           ///< looked for in every text
  Specials special;                ///< with parse_special: these and the control pieces
  SpecialTokens inner;             ///< user-defined pieces that the algorithm finds, as a part of the text around them

  explicit Impl(Vocabulary given);

  bool is_sentencepiece() const { return std::holds_alternative<SentencePieceBpe>(algorithm); }
  bool adds_space() const { return vocabulary.add_space_prefix && (is_sentencepiece() || vocabulary.prefix_if_absent); }
  bool is_special(TokenId id) const;
  bool is_normalized(TokenId id) const { return contains(vocabulary.normalized, id); }
  bool restarts_text(TokenId id) const;
  std::string normalized(std::string_view piece) const;
  std::string with_space(std::string text, Place place) const;
  void encode_text(const Part& whole, const Specials& specials, std::vector<TokenId>& ids) const;
  void encode_part(const Part& part, const Specials& specials, std::vector<TokenId>& ids) const;
  void encode_marked(const Part& part, const Specials& specials, std::vector<TokenId>& ids) const;
  void encode_plain(std::string_view part, Place place, std::vector<TokenId>& ids) const;
  void run(std::string_view text, std::vector<TokenId>& ids) const;
  TokenId check(TokenId id) const;
};

Tokenizer::Impl::Impl(Vocabulary given) : vocabulary(checked(std::move(given))), algorithm(make_algorithm(vocabulary)) {
  const TokenId count = static_cast<TokenId>(vocabulary.pieces.size());
  vocabulary.merges = {};  // `algorithm` has them in a table of its own
  bytes.reserve(count);
  for (TokenId id = 0; id < count; ++id) {
    bytes.push_back(is_sentencepiece() ? sentencepiece_bytes(vocabulary, id) : byte_bpe_bytes(vocabulary, id));
    std::string text = vocabulary.pieces[id];
    if (!is_special(id) && vocabulary.types[id] == PieceType::user_defined) inner.add(text, id);
    if (!is_special(id)) continue;
    if (is_normalized(id)) {
      text = normalized(text);
      bytes[id] = is_sentencepiece() ? spaces_for_marks(text) : text;
    }
    const auto add = [&](Specials& specials) {
      (is_normalized(id) ? specials.normalized : specials.given).add(text, id);
      specials.has_normalized = specials.has_normalized || is_normalized(id);
    };
    add(special);
    if (vocabulary.types[id] == PieceType::user_defined) add(user_defined);
  }
}

/// Cut out of the text before anything else is done.
bool Tokenizer::Impl::is_special(TokenId id) const {
  const PieceType type = vocabulary.types[id];
  if (type == PieceType::control) return true;
  return type == PieceType::user_defined && (!is_sentencepiece() || vocabulary.user_defined_restarts_text);
}

/// A normalizer's space is there before the normalized pieces are cut out, and what follows them gets none.
bool Tokenizer::Impl::restarts_text(TokenId id) const {
  return is_special(id) && !vocabulary.prefix_once && (vocabulary.prefix_if_absent || !is_normalized(id));
}

TokenId Tokenizer::Impl::check(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= vocabulary.pieces.size()) {
    fail("there is no token {}: the vocabulary has {}; use the tokenizer that the model was made with", id,
         vocabulary.pieces.size());
  }
  return id;
}

/// What the text of a normalized piece reads like where it is looked for.
std::string Tokenizer::Impl::normalized(std::string_view piece) const {
  std::string text = vocabulary.nfc ? nfc(piece) : std::string(piece);
  if (!is_sentencepiece() || vocabulary.marks_after_cutting) return text;
  if (vocabulary.add_space_prefix && !vocabulary.prefix_if_absent) text.insert(0, 1, ' ');
  return marks_for_spaces(text);
}

std::string Tokenizer::Impl::with_space(std::string text, Place place) const {
  const bool is_there = vocabulary.prefix_if_absent && text.starts_with(' ');
  const bool gets_one = place == Place::start || (place == Place::behind_special && !vocabulary.prefix_once);
  if (adds_space() && !is_there && gets_one) text.insert(0, 1, ' ');
  return text;
}

void Tokenizer::Impl::run(std::string_view text, std::vector<TokenId>& ids) const {
  std::visit([&](const auto& algorithm) { algorithm.encode(text, ids); }, algorithm);
}

/// A part without special pieces.
void Tokenizer::Impl::encode_plain(std::string_view part, Place place, std::vector<TokenId>& ids) const {
  const auto* sentencepiece = std::get_if<SentencePieceBpe>(&algorithm);
  if (sentencepiece == nullptr && !adds_space()) return run(part, ids);
  const std::string text = sentencepiece == nullptr ? std::string(part) : sentencepiece->normalize(part);
  if (!text.empty()) run(with_space(text, place), ids);
}

/// A part with normalized pieces, which know spaces as U+2581.
void Tokenizer::Impl::encode_marked(const Part& part, const Specials& specials, std::vector<TokenId>& ids) const {
  const auto marked = [&](std::string_view text) {
    const std::string normal = std::get<SentencePieceBpe>(algorithm).normalize(vocabulary.nfc ? nfc(text) : text);
    return marks_for_spaces(vocabulary.prefix_if_absent ? normal : with_space(normal, part.place));
  };
  if (std::get<SentencePieceBpe>(algorithm).normalize(part.text).empty()) return;
  cut_text(marked(part.text), content_after(part, marked), part.guarded, specials.normalized, vocabulary, ids,
           [&](std::string_view between, size_t at) {
             const std::string spaced = spaces_for_marks(between);
             run(vocabulary.prefix_if_absent ? with_space(spaced, part.place_of(at)) : spaced, ids);
           });
}

/// What lies between the special pieces of the text as it is given.
void Tokenizer::Impl::encode_part(const Part& part, const Specials& specials, std::vector<TokenId>& ids) const {
  if (specials.has_normalized && is_sentencepiece() && !vocabulary.marks_after_cutting) {
    return encode_marked(part, specials, ids);
  }
  const auto composed = [&](std::string_view text) { return vocabulary.nfc ? nfc(text) : std::string(text); };
  const std::string text = composed(part.text);
  if (!specials.has_normalized) return encode_plain(text, part.place, ids);
  cut_text(text, content_after(part, composed), part.guarded, specials.normalized, vocabulary, ids,
           [&](std::string_view between, size_t at) { encode_plain(between, part.place_of(at), ids); });
}

void Tokenizer::Impl::encode_text(const Part& whole, const Specials& specials, std::vector<TokenId>& ids) const {
  const auto encode = [&](size_t from, size_t to, Place place) {
    std::vector<ByteRange> content;
    if (specials.has_normalized) content = part_of(whole.content, from, to);
    encode_part({whole.text.substr(from, to - from), std::move(content), whole.guarded, place}, specials, ids);
  };
  const auto is_guarded = [&](const SpecialTokens::Match& match) {
    return contains(whole.guarded, match.id) && touches(whole.content, match.at, match.at + match.size);
  };
  const auto visit = [&](std::string_view text, size_t at) {
    const size_t end = at + text.size();
    Place place = whole.place_of(at);
    // A guarded piece of the algorithm's own is cut in two, so that it is not found.
    while (!whole.guarded.empty() && at < end) {
      const SpecialTokens::Match match = inner.find(whole.text.substr(0, end), at, is_guarded);
      if (match.size == 0) break;
      const size_t cut = match.at + next_utf8(whole.text.substr(match.at)).size;
      encode(at, cut, std::exchange(place, Place::middle));
      at = cut;
    }
    if (at < end) encode(at, end, place);
  };
  cut_text(whole.text, whole.content, whole.guarded, specials.given, vocabulary, ids, visit);
}

Tokenizer::Tokenizer(Vocabulary vocabulary) : impl_(std::make_unique<Impl>(std::move(vocabulary))) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxText) fail("a text of {} bytes is longer than {}; give it in parts", text.size(), kMaxText);
  const Vocabulary& vocabulary = impl_->vocabulary;
  std::vector<TokenId> ids;
  if (options.add_begin && vocabulary.add_begin) ids.push_back(*vocabulary.begin);
  const Place place = options.goes_on ? Place::middle : Place::start;
  impl_->encode_text({text, {options.content.begin(), options.content.end()}, options.guarded, place},
                     options.parse_special ? impl_->special : impl_->user_defined, ids);
  if (options.add_begin && vocabulary.add_end) ids.push_back(*vocabulary.end);
  return ids;
}

std::string Tokenizer::bytes(TokenId id, bool show_special) const {
  impl_->check(id);
  if (impl_->vocabulary.types[id] == PieceType::control && !show_special) return {};
  return impl_->bytes[id];
}

std::string Tokenizer::next_bytes(TokenId id, bool show_special, bool& at_start) const {
  std::string added = bytes(id, show_special);
  const bool restarts = impl_->restarts_text(id);
  if (at_start && !restarts && impl_->adds_space() && added.starts_with(' ')) {
    added.erase(0, 1);
    at_start = false;
  } else {
    at_start = restarts || (at_start && added.empty());
  }
  return added;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool show_special) const {
  std::string text;
  bool at_start = true;
  for (const TokenId id : ids) text += next_bytes(id, show_special, at_start);
  return text;
}

bool Tokenizer::restarts_text(TokenId id) const {
  return impl_->restarts_text(impl_->check(id));
}

const std::string& Tokenizer::piece(TokenId id) const {
  return impl_->vocabulary.pieces[impl_->check(id)];
}
const Vocabulary& Tokenizer::vocabulary() const {
  return impl_->vocabulary;
}
size_t Tokenizer::size() const {
  return impl_->vocabulary.pieces.size();
}

bool Tokenizer::is_end(TokenId id) const {
  const std::vector<TokenId>& ends = impl_->vocabulary.end_tokens;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

}  // namespace contexture
