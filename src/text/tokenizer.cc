#include "text/tokenizer.h"

#include <algorithm>
#include <variant>

#include "base/error.h"
#include "text/byte_bpe.h"
#include "text/nfc.h"
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

bool contains(const std::vector<TokenId>& ascending, TokenId id) {
  return std::binary_search(ascending.begin(), ascending.end(), id);
}

Vocabulary checked(Vocabulary vocabulary) {
  check_vocabulary(vocabulary, "vocabulary");
  return vocabulary;
}

}  // namespace

struct Tokenizer::Impl {
  Vocabulary vocabulary;
  Algorithm algorithm;
  std::vector<std::string> bytes;  ///< by id: what decode() writes
  SpecialTokens user_defined;      ///< looked for in every text
  SpecialTokens special;           ///< with parse_special: these and the control pieces

  explicit Impl(Vocabulary given);

  bool adds_space() const { return is_sentencepiece() && vocabulary.add_space_prefix; }
  bool is_sentencepiece() const { return std::holds_alternative<SentencePieceBpe>(algorithm); }
  bool is_special(TokenId id) const;
  bool restarts_text(TokenId id) const { return is_special(id) && !vocabulary.prefix_once; }
  void encode_text(std::string_view text, const SpecialTokens& specials, bool goes_on, std::vector<TokenId>& ids) const;
  /// Where a part stands: at the text's start, there but after other text, or after a special token.
  enum class Place { first, goes_on, later };
  void encode_part(std::string_view part, Place place, std::vector<TokenId>& ids) const;
  TokenId check(TokenId id) const;
};

Tokenizer::Impl::Impl(Vocabulary given) : vocabulary(checked(std::move(given))), algorithm(make_algorithm(vocabulary)) {
  const TokenId count = static_cast<TokenId>(vocabulary.pieces.size());
  vocabulary.merges = {};  // `algorithm` has them in a table of its own
  bytes.reserve(count);
  for (TokenId id = 0; id < count; ++id) {
    bytes.push_back(is_sentencepiece() ? sentencepiece_bytes(vocabulary, id) : byte_bpe_bytes(vocabulary, id));
    if (!is_special(id)) continue;
    const std::string text = is_sentencepiece() ? spaces_for_marks(vocabulary.pieces[id]) : vocabulary.pieces[id];
    special.add(text, id);
    if (vocabulary.types[id] == PieceType::user_defined) user_defined.add(text, id);
  }
}

/// Cut out of the text before anything else is done.
bool Tokenizer::Impl::is_special(TokenId id) const {
  const PieceType type = vocabulary.types[id];
  if (type == PieceType::control) return true;
  return type == PieceType::user_defined && (!is_sentencepiece() || vocabulary.user_defined_restarts_text);
}

TokenId Tokenizer::Impl::check(TokenId id) const {
  if (id < 0 || static_cast<size_t>(id) >= vocabulary.pieces.size()) {
    fail("there is no token {}: the vocabulary has {}; use the tokenizer that the model was made with", id,
         vocabulary.pieces.size());
  }
  return id;
}

void Tokenizer::Impl::encode_part(std::string_view part, Place place, std::vector<TokenId>& ids) const {
  std::string composed;
  if (vocabulary.nfc) part = composed = nfc(part);
  if (const auto* byte_bpe = std::get_if<ByteBpe>(&algorithm)) return byte_bpe->encode(part, ids);
  const auto& sentencepiece = std::get<SentencePieceBpe>(algorithm);
  if (!vocabulary.add_space_prefix || place == Place::goes_on || (vocabulary.prefix_once && place != Place::first) ||
      (vocabulary.prefix_if_absent && part.starts_with(' '))) {
    return sentencepiece.encode(part, ids);
  }
  std::string prefixed = " ";
  prefixed += part;
  sentencepiece.encode(prefixed, ids);
}

/// Cuts the special tokens out of the text and encodes what lies between them.
void Tokenizer::Impl::encode_text(std::string_view text, const SpecialTokens& specials, bool goes_on,
                                  std::vector<TokenId>& ids) const {
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = specials.find(text, at);
    std::string_view part = text.substr(at, match.at - at);
    if (contains(vocabulary.strips_left, match.id)) part.remove_suffix(white_space_suffix(part));
    if (!part.empty()) encode_part(part, at > 0 ? Place::later : goes_on ? Place::goes_on : Place::first, ids);
    if (match.size == 0) return;
    ids.push_back(match.id);
    at = match.at + match.size;
    if (contains(vocabulary.strips_right, match.id)) at += white_space_prefix(text.substr(at));
  }
}

Tokenizer::Tokenizer(Vocabulary vocabulary) : impl_(std::make_unique<Impl>(std::move(vocabulary))) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxText) fail("a text of {} bytes is longer than {}; give it in parts", text.size(), kMaxText);
  const Vocabulary& vocabulary = impl_->vocabulary;
  const SpecialTokens& specials = options.parse_special ? impl_->special : impl_->user_defined;
  std::vector<TokenId> ids;
  if (options.add_begin && vocabulary.add_begin) ids.push_back(*vocabulary.begin);
  if (const auto* sentencepiece = std::get_if<SentencePieceBpe>(&impl_->algorithm)) {
    impl_->encode_text(sentencepiece->normalize(text), specials, options.goes_on, ids);
  } else {
    impl_->encode_text(text, specials, options.goes_on, ids);
  }
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
