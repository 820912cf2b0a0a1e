#include "engine/shown_text.h"

#include <utility>

#include "base/error.h"

namespace contexture {

ShownText::ShownText(const Tokenizer& tokenizer, std::span<const TokenId> prompt, std::vector<std::string> stops,
                     const Resume& from)
    : decoder_(tokenizer, prompt.first(prompt.size() - std::min(prompt.size(), from.open_tokens))),
      stops_(std::move(stops)),
      tokens_(prompt.size() - std::min(prompt.size(), from.open_tokens)),
      borders_{{tokens_, 0}},
      shown_(from.shown_bytes) {
  std::string decoded;
  for (const TokenId id : prompt.subspan(tokens_)) add(id, decoded);
  if (from.shown_bytes > text_.size()) {
    fail("{} bytes are said to be shown of a text that has {}; run it again from its beginning", from.shown_bytes,
         text_.size());
  }
  ready_ = stops_.push(std::string_view(text_).substr(shown_));
}

void ShownText::add(TokenId id, std::string& decoded) {
  decoded = decoder_.push(id);
  text_ += decoded;
  ++tokens_;
  if (decoder_.open().empty()) borders_.push_back({tokens_, text_.size()});
}

std::string ShownText::push(TokenId id) {
  std::string decoded;
  add(id, decoded);
  std::string text = std::exchange(ready_, {});
  text += stops_.push(decoded);
  shown_ += text.size();
  size_t last = 0;  // border up to which all was shown
  while (last + 1 < borders_.size() && borders_[last + 1].bytes <= shown_) ++last;
  const size_t done = borders_[last].bytes;
  borders_.erase(borders_.begin(), borders_.begin() + static_cast<ptrdiff_t>(last));
  for (Border& border : borders_) border.bytes -= done;
  text_.erase(0, done);
  shown_ -= done;
  return text;
}

std::string ShownText::finish() {
  std::string text = std::exchange(ready_, {});
  text += stops_.push(decoder_.finish());
  text += stops_.finish();
  return text;
}

}  // namespace contexture
