#include "base/error.h"

namespace contexture {

std::string printable(std::string_view text, size_t limit) {
  std::string line(text.substr(0, limit));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  if (text.size() > limit) line += "...";
  return line;
}

}  // namespace contexture
