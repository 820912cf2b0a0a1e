#include "text/tokenizer.h"
#include "text/utf8.h"

namespace contexture {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> after, bool show_special)
    : tokenizer_(&tokenizer), show_special_(show_special), at_start_(true) {
  for (const TokenId id : after) tokenizer_->next_bytes(id, show_special_, at_start_);
}

std::string StreamDecoder::push(TokenId id) {
  pending_ += tokenizer_->next_bytes(id, show_special_, at_start_);
  std::string text;
  std::string_view left = pending_;
  while (!left.empty()) {
    const Utf8Sequence next = next_utf8(left);
    if (next.kind == Utf8Sequence::Kind::incomplete) break;
    text += next.kind == Utf8Sequence::Kind::valid ? left.substr(0, next.size) : kReplacementCharacter;
    left.remove_prefix(next.size);
  }
  pending_.erase(0, pending_.size() - left.size());
  return text;
}

std::string StreamDecoder::finish() {
  const bool is_cut_off = !pending_.empty();
  pending_.clear();
  at_start_ = true;
  return is_cut_off ? std::string(kReplacementCharacter) : std::string();
}

}  // namespace contexture
