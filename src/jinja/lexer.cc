#include "jinja/lexer.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cstdint>

#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

/// Every newline as "\n", and without the one at the end.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      const size_t open = find_open(at_);
      if (open == text_.npos) {
        add(TokenType::data, text_.substr(at_));
        move_to(text_.size());
        break;
      }
      const char kind = text_[open + 1];
      const char sign = open + 2 < text_.size() ? text_[open + 2] : ' ';
      add_data(at_, open, sign, kind != '{');
      move_to(open + (sign == '-' || sign == '+' ? 3 : 2));
      if (kind == '#') {
        skip_comment();
      } else if (kind == '%' && is_raw_tag()) {
        read_raw();
      } else {
        add(kind == '{' ? TokenType::variable_begin : TokenType::block_begin, {});
        read_tag(kind == '{');
      }
    }
    add(TokenType::end, {});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string message) const { throw SyntaxFault{std::move(message), line_}; }

  void add(TokenType type, std::string text) {
    if (type != TokenType::data || !text.empty()) tokens_.push_back({type, std::move(text), line_});
  }

  void move_to(size_t place) {
    for (; at_ < place; ++at_) line_ += text_[at_] == '\n';
  }

  size_t find_open(size_t from) const {
    for (size_t at = text_.find('{', from); at != text_.npos && at + 1 < text_.size(); at = text_.find('{', at + 1)) {
      const char next = text_[at + 1];
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return text_.npos;
  }

  /// Text up to a tag, whose sign and kind decide about the white space before it.
  void add_data(size_t from, size_t to, char sign, bool takes_indentation) {
    std::string_view data = std::string_view(text_).substr(from, to - from);
    if (sign == '-') {
      data = strip(data, Side::right);
    } else if (sign != '+' && takes_indentation) {
      const size_t newline = data.rfind('\n');
      const size_t start = newline == data.npos ? 0 : newline + 1;
      if ((start > 0 || at_line_start_) && strip(data.substr(start)).empty()) data = data.substr(0, start);
    }
    add(TokenType::data, std::string(data));
  }

  /// Ends a tag whose last character is at `close`, and the white space that goes with it.
  void end_tag(size_t close, char sign, bool takes_newline) {
    size_t next = close + 2;
    if (sign == '-') {
      while (next < text_.size()) {
        const Character c = character_at(text_, next);
        if (!is_space(c.code)) break;
        next += c.size;
      }
    } else if (takes_newline && sign != '+' && next < text_.size() && text_[next] == '\n') {
      ++next;
    }
    move_to(next);
    at_line_start_ = text_[next - 1] == '\n';
  }

  void skip_comment() {
    const size_t close = text_.find("#}", at_);
    if (close == text_.npos) fail("a comment has no end; close it with #}");
    end_tag(close, close > at_ ? text_[close - 1] : ' ', true);
  }

  size_t skip_spaces(size_t at) const {
    while (at < text_.size() && (text_[at] == ' ' || (text_[at] >= '\t' && text_[at] <= '\r'))) ++at;
    return at;
  }

  /// Whether `word` and a tag's end lie at `at`; says where the end is, and its sign.
  bool is_word_tag(size_t at, std::string_view word, size_t& close, char& sign) const {
    at = skip_spaces(at);
    if (std::string_view(text_).substr(at, word.size()) != word) return false;
    at = skip_spaces(at + word.size());
    sign = at < text_.size() && (text_[at] == '-' || text_[at] == '+') ? text_[at] : ' ';
    close = sign == ' ' ? at : at + 1;
    return std::string_view(text_).substr(close, 2) == "%}";
  }

  bool is_raw_tag() const {
    size_t close;
    char sign;
    return is_word_tag(at_, "raw", close, sign);
  }

  void read_raw() {
    size_t close = 0;
    char sign = ' ';
    is_word_tag(at_, "raw", close, sign);
    end_tag(close, sign, false);
    for (size_t open = text_.find("{%", at_); open != text_.npos; open = text_.find("{%", open + 1)) {
      const char before = open + 2 < text_.size() ? text_[open + 2] : ' ';
      if (!is_word_tag(open + (before == '-' || before == '+' ? 3 : 2), "endraw", close, sign)) continue;
      add_data(at_, open, before, true);
      return end_tag(close, sign, true);
    }
    fail("a raw block has no end; close it with {% endraw %}");
  }

  /// The inside of {{ }} or {% %}.
  void read_tag(bool variable) {
    std::string brackets;  // that are open
    while (true) {
      move_to(skip_spaces(at_));
      if (at_ >= text_.size()) fail(variable ? "a {{ has no }}" : "a {% has no %}");
      if (brackets.empty()) {
        const std::string_view closing = variable ? "}}" : "%}";
        const char c = text_[at_];
        const bool has_sign = c == '-' || (c == '+' && !variable);
        const size_t close = has_sign ? at_ + 1 : at_;
        if (std::string_view(text_).substr(close, 2) == closing) {
          add(variable ? TokenType::variable_end : TokenType::block_end, {});
          return end_tag(close, has_sign ? c : ' ', !variable);
        }
      }
      read_token(brackets);
    }
  }

  void read_token(std::string& brackets) {
    const char c = text_[at_];
    if (is_digit(c)) return read_number();
    if (c == '"' || c == '\'') return read_string(c);
    if (starts_name(c)) {
      size_t end = at_ + 1;
      while (end < text_.size() && (starts_name(text_[end]) || is_digit(text_[end]))) ++end;
      return take(TokenType::name, end - at_);
    }
    for (const std::string_view two : {"**", "//", "==", "!=", ">=", "<="}) {
      if (std::string_view(text_).substr(at_, 2) == two) return take(TokenType::symbol, 2);
    }
    if (std::string_view("+-/*%~[](){}<>=.:|,").find(c) == std::string_view::npos) {
      fail(fmt::format("unexpected byte 0x{:02x} in a tag", static_cast<unsigned char>(c)));
    }
    if (c == '(' || c == '[' || c == '{') brackets += c;
    if (c == ')' || c == ']' || c == '}') {
      const char opened = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (brackets.empty() || brackets.back() != opened) fail(fmt::format("unexpected '{}'", c));
      brackets.pop_back();
    }
    take(TokenType::symbol, 1);
  }

  void take(TokenType type, size_t size) {
    add(type, text_.substr(at_, size));
    move_to(at_ + size);
  }

  size_t skip_digits(size_t at) const {
    while (at < text_.size() && (is_digit(text_[at]) || (text_[at] == '_' && is_digit(text_[at - 1])))) ++at;
    return at;
  }

  void read_number() {
    const bool after_dot = at_ > 0 && text_[at_ - 1] == '.';  // a.0.1 is two looks into lists
    if (text_[at_] == '0' && at_ + 1 < text_.size() && read_based_number()) return;
    size_t end = skip_digits(at_);
    bool whole = true;
    const auto digit_at = [&](size_t i) { return i < text_.size() && is_digit(text_[i]); };
    if (!after_dot && end < text_.size() && text_[end] == '.' && digit_at(end + 1)) {
      end = skip_digits(end + 1);
      whole = false;
    }
    if (!after_dot && end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const size_t sign = end + 1 < text_.size() && (text_[end + 1] == '-' || text_[end + 1] == '+') ? 2 : 1;
      if (digit_at(end + sign)) {
        end = skip_digits(end + sign);
        whole = false;
      }
    }
    std::string digits;
    for (const char c : std::string_view(text_).substr(at_, end - at_)) {
      if (c != '_') digits += c;
    }
    add(whole ? TokenType::integer : TokenType::floating, digits);
    move_to(end);
  }

  /// "0x1F", "0b101", "0o17".
  bool read_based_number() {
    const char letter = lower(text_[at_ + 1]);
    const int base = letter == 'x' ? 16 : letter == 'b' ? 2 : letter == 'o' ? 8 : 0;
    if (base == 0) return false;
    std::string digits;
    size_t end = at_ + 2;
    for (; end < text_.size() && (text_[end] == '_' || std::isalnum(static_cast<unsigned char>(text_[end]))); ++end) {
      if (text_[end] != '_') digits += text_[end];
    }
    int64_t value = 0;
    const auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (digits.empty() || error != std::errc() || last != digits.data() + digits.size()) {
      fail(fmt::format("{} is no number, or too large", text_.substr(at_, std::min<size_t>(end - at_, 40))));
    }
    add(TokenType::integer, std::to_string(value));
    move_to(end);
    return true;
  }

  void read_string(char quote) {
    std::string value;
    size_t at = at_ + 1;
    while (at < text_.size() && text_[at] != quote) {
      if (text_[at] == '\\' && at + 1 < text_.size()) {
        at = read_escape(at + 1, value);
      } else {
        value += text_[at++];
      }
    }
    if (at >= text_.size()) fail("a string has no end");
    add(TokenType::string, std::move(value));
    move_to(at + 1);
  }

  /// Python's escapes; the place after it.
  size_t read_escape(size_t at, std::string& value) const {
    const char c = text_[at];
    constexpr std::string_view names = "nrtabfv\\'\"", values = "\n\r\t\a\b\f\v\\'\"";
    if (const size_t i = names.find(c); i != names.npos) {
      value += values[i];
      return at + 1;
    }
    if (c == '\n') return at + 1;  // the line goes on
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) return read_code(at, digits, value);
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      const size_t end = at + 3;
      while (at < end && at < text_.size() && text_[at] >= '0' && text_[at] <= '7') {
        code = code * 8 + static_cast<uint32_t>(text_[at++] - '0');
      }
      append_utf8(value, code);
      return at;
    }
    if (c == 'N') fail("a string names a character with \\N; write it itself");
    value += '\\';
    return at;
  }

  size_t read_code(size_t at, size_t digits, std::string& value) const {
    uint32_t code = 0;
    for (size_t i = 1; i <= digits; ++i) {
      const char c = at + i < text_.size() ? text_[at + i] : ' ';
      const size_t digit = std::string_view("0123456789abcdef").find(static_cast<char>(c | 0x20));
      if (c < '0' || digit == std::string_view::npos) fail("a string has a \\x, \\u or \\U without its digits");
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    if (code > 0x10FFFF) fail("a string has a \\U beyond Unicode");
    append_utf8(value, code);
    return at + 1 + digits;
  }

  const std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;  // what comes next stands at the start of a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace contexture::jinja
