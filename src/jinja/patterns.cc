#include <algorithm>
#include <cmath>

#include "jinja/format.h"
#include "jinja/strings.h"

/// Python's two kinds of patterns: "%5.2f" and "{:5.2f}".
namespace contexture::jinja {
namespace {

/// Adds to a text that is Markup what is none, escaped. (Python formats first and escapes then.)
void add_escaped(In in, Writer& out, const Value& made, bool markup) {
  const Value text = markup ? escaped(in.heap(), made) : made;
  out.add(text.string());
}

/// pattern % argument.
class PercentFormat {
 public:
  PercentFormat(In in, const String& pattern, const Value& argument)
      : in_(in), pattern_(pattern), text_(pattern.bytes()), argument_(argument), out_(in.heap()) {}

  Value run() {
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out_.add(pattern_, at_, percent);
      at_ = percent + 1;
      if (percent < text_.size()) write_field();
    }
    const bool is_mapping = argument_.is(Kind::dict) || argument_.is(Kind::list) || argument_.is(Kind::range);
    if (!is_mapping && !used_all()) raise("not all values are used by the pattern");
    return in_.heap().string(out_.text(), pattern_.is_markup);
  }

 private:
  struct Field {
    bool left = false, plus = false, space = false, alternate = false, zero = false;
    int64_t width = 0, precision = -1;
    char type = 0;
  };

  char now() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) { return now() == c && ++at_; }
  bool used_all() const { return argument_.is(Kind::tuple) ? place_ == argument_.items().size() : place_ == 1; }

  Value next_argument() {
    const size_t count = argument_.is(Kind::tuple) ? argument_.items().size() : 1;
    if (place_ == count) raise("the pattern has more places than there are values");
    return argument_.is(Kind::tuple) ? argument_.items()[place_++] : (++place_, argument_);
  }

  Value named_argument() {
    const size_t end = text_.find(')', at_);
    if (end == text_.npos) raise("a name in a pattern has no ')'");
    if (!argument_.is(Kind::dict)) raise("a pattern with names needs a dictionary and not {}", kind_name(argument_));
    const Value* found = in_.heap().find(argument_.dict(), std::string_view(text_).substr(at_, end - at_));
    if (!found) raise("the pattern asks for '{}', which is not given", text_.substr(at_, end - at_));
    at_ = end + 1;
    return *found;
  }

  int64_t read_size() {
    if (take('*')) {
      const Value size = next_argument();
      if (!size.is_whole()) raise("'*' in a pattern needs a whole number");
      return checked(size.whole());
    }
    int64_t size = 0;
    for (; now() >= '0' && now() <= '9'; ++at_) size = checked(size * 10 + (now() - '0'));
    return size;
  }
  static int64_t checked(int64_t size) {
    if (size > 1 << 20 || size < -(1 << 20)) raise("a pattern that makes {} characters", size);
    return size;
  }

  void write_field() {
    Field field;
    const bool is_named = take('(');
    const Value named = is_named ? named_argument() : Value();
    for (; at_ < text_.size() && std::string_view("-+ #0").find(now()) != std::string_view::npos; ++at_) {
      field.left |= now() == '-';
      field.plus |= now() == '+';
      field.space |= now() == ' ';
      field.alternate |= now() == '#';
      field.zero |= now() == '0';
    }
    field.width = read_size();
    if (field.width < 0) field.left = true;
    if (take('.')) field.precision = std::max<int64_t>(read_size(), 0);
    while (now() == 'h' || now() == 'l' || now() == 'L') ++at_;
    field.type = now();
    if (at_++ >= text_.size()) raise("a pattern ends within a '%'");
    if (field.type == '%') return out_.add("%");
    write_value(field, is_named ? named : next_argument());
  }

  void write_value(const Field& field, const Value& value) {
    switch (field.type) {
      case 's':
        return write_text(field, pattern_.is_markup ? escaped(in_.heap(), value) : string_of(in_.heap(), value));
      case 'r':
      case 'a': {
        const Value text = repr_of(in_.heap(), value, field.type == 'a');
        return write_text(field, pattern_.is_markup ? escaped(in_.heap(), text) : text);
      }
      case 'c':
        return write_character(field, value);
      case 'd':
      case 'i':
      case 'u':
        return write_whole(field, value, 'd');
      case 'o':
      case 'x':
      case 'X':
        if (value.is(Kind::floating)) raise("'%{}' needs a whole number", field.type);
        return write_whole(field, value, field.type);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.is_number()) raise("'%{}' needs a number and not {}", field.type, kind_name(value));
        return write_number(
            field, std::signbit(value.number()), "",
            digits_of(std::abs(value.number()), field.type, static_cast<int>(field.precision), field.alternate));
      default:
        raise("a pattern with '%{}' is not known", field.type);
    }
  }

  void write_character(const Field& field, const Value& value) {
    if (value.is(Kind::string)) {
      if (count_characters(value.text()) != 1) raise("'%c' needs one character");
      return write_text(field, value);
    }
    if (!value.is_whole() || value.whole() < 0 || value.whole() > 0x10FFFF) raise("'%c' needs a character");
    write_text(field, in_.heap().string(utf8_of(static_cast<char32_t>(value.whole()))));
  }

  void write_whole(const Field& field, const Value& value, char type) {
    if (!value.is_number()) raise("'%{}' needs a number and not {}", field.type, kind_name(value));
    if (value.is(Kind::floating) && !(std::abs(value.floating) < 9e18)) raise("a number grows beyond 64 bits");
    const int64_t whole = value.is_whole() ? value.whole() : static_cast<int64_t>(value.floating);
    const uint64_t size = whole < 0 ? uint64_t{0} - static_cast<uint64_t>(whole) : static_cast<uint64_t>(whole);
    std::string digits = digits_of(size, type);
    const size_t least = field.precision > 0 ? static_cast<size_t>(field.precision) : 0;
    if (digits.size() < least) digits.insert(0, least - digits.size(), '0');
    write_number(field, whole < 0, field.alternate && type != 'd' ? std::string{'0', type} : "", digits);
  }

  void write_number(const Field& field, bool is_negative, const std::string& prefix, const std::string& digits) {
    const std::string sign = (is_negative ? "-" : field.plus ? "+" : field.space ? " " : "") + prefix;
    const size_t padding = padding_of(field, sign.size() + digits.size());
    const bool zeros = field.zero && !field.left;
    if (!zeros && !field.left) out_.fill(" ", padding);
    out_.add(sign);
    if (zeros) out_.fill("0", padding);
    out_.add(digits);
    if (field.left) out_.fill(" ", padding);
  }

  void write_text(const Field& field, const Value& text) {
    const std::string_view bytes = text.text();
    const size_t end =
        field.precision < 0 ? bytes.size() : place_of_character(bytes, static_cast<size_t>(field.precision));
    const size_t padding = padding_of(field, count_characters(bytes.substr(0, end)));
    if (!field.left) out_.fill(" ", padding);
    out_.add(text.string(), 0, end);
    if (field.left) out_.fill(" ", padding);
  }

  static size_t padding_of(const Field& field, size_t size) {
    const size_t width = static_cast<size_t>(std::abs(field.width));
    return width > size ? width - size : 0;
  }

  In in_;
  const String& pattern_;
  const std::string& text_;
  const Value argument_;
  Writer out_;
  size_t at_ = 0;
  size_t place_ = 0;
};

/// pattern.format(arguments).
class BraceFormat {
 public:
  BraceFormat(In in, const String& pattern, Args arguments)
      : in_(in), arguments_(arguments), markup_(pattern.is_markup), pattern_(pattern) {}

  Value run() {
    Writer out(in_.heap());
    write(out, pattern_, 0);
    return in_.heap().string(out.text(), markup_);
  }

 private:
  /// Fields of a pattern, or, one level deeper, of a field's specification.
  void write(Writer& out, const MarkedText& pattern, int depth) {
    if (depth == 3) raise("a pattern's fields are nested too deeply");
    const std::string& text = pattern.bytes();
    for (size_t at = 0; at < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", at), text.size());
      out.add(pattern, at, brace);
      at = brace;
      if (at == text.size()) return;
      if (at + 1 < text.size() && text[at + 1] == text[at]) {
        out.add(pattern, at, at + 1);
        at += 2;
      } else if (text[at] == '}') {
        raise("a single '}}' in a pattern");
      } else {
        const size_t end = end_of_field(text, at + 1);
        write_field(out, pattern, at + 1, end, depth);
        at = end + 1;
      }
    }
  }

  static size_t end_of_field(const std::string& text, size_t at) {
    for (int open = 1; at < text.size(); ++at) {
      open += text[at] == '{' ? 1 : text[at] == '}' ? -1 : 0;
      if (open == 0) return at;
    }
    raise("a field of a pattern has no '}}'");
  }

  /// name !conversion :specification.
  void write_field(Writer& out, const MarkedText& pattern, size_t from, size_t to, int depth) {
    const std::string& text = pattern.bytes();
    size_t name_end = from;
    for (bool in_brackets = false; name_end < to; ++name_end) {
      const char c = text[name_end];
      if (c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      if (!in_brackets && (c == '!' || c == ':')) break;
    }
    Value value = field_value(std::string_view(text).substr(from, name_end - from));
    size_t at = name_end;
    if (at < to && text[at] == '!') {
      if (at + 1 >= to || (at + 2 < to && text[at + 2] != ':')) raise("a pattern's conversion is one letter");
      value = converted(value, text[at + 1]);
      at += 2;
    }
    MarkedText specification;
    if (at < to) specification.add(pattern, at + 1, to);
    Writer expanded(in_.heap());
    write(expanded, specification, depth + 1);
    if (value.is_markup() && markup_ && expanded.size() > 0) raise("Markup takes no format");
    Writer made(in_.heap());
    write_formatted(in_, made, value, expanded.text());
    add_escaped(in_, out, in_.heap().string(made.text(), value.is_markup()), markup_ && depth == 0);
  }

  Value converted(const Value& value, char conversion) {
    if (conversion == 's') return string_of(in_.heap(), value);
    if (conversion == 'r' || conversion == 'a') return repr_of(in_.heap(), value, conversion == 'a');
    raise("a pattern with the conversion '{}' is not known", conversion);
  }

  static bool is_number(std::string_view text) {
    return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
  }

  /// "0.role", "m[role]", "": the next one.
  Value field_value(std::string_view field) {
    const size_t name_end = std::min(field.find_first_of(".["), field.size());
    Value value = first_value(field.substr(0, name_end));
    for (size_t at = name_end; at < field.size();) {
      const bool is_attribute = field[at] == '.';
      const size_t end = is_attribute ? std::min(field.find_first_of(".[", at + 1), field.size()) : field.find(']', at);
      if (end == field.npos || end == at + 1) raise("a field of a pattern has an empty part");
      const std::string_view part = field.substr(at + 1, end - at - 1);
      const Value key = is_number(part) && !is_attribute
                            ? Value::of(static_cast<int64_t>(std::stoll(std::string(part))))
                            : in_.heap().string(part);
      value = is_attribute ? in_.attribute(value, key) : in_.item(value, key);
      at = is_attribute ? end : end + 1;
      if (!is_attribute && at < field.size() && field[at] != '.' && field[at] != '[') {
        raise("a field of a pattern has something after ']'");
      }
    }
    return value;
  }

  Value first_value(std::string_view name) {
    if (name.empty() || is_number(name)) {
      if (counts_ != (name.empty() ? 1 : 2) && counts_ != 0) raise("a pattern has fields with and without numbers");
      counts_ = name.empty() ? 1 : 2;
      const size_t place = name.empty() ? automatic_++ : std::stoul(std::string(name));
      if (place >= arguments_.positional.size()) raise("the pattern asks for the value {}, which is not given", place);
      return arguments_.positional[place];
    }
    for (const auto& [given, value] : arguments_.named) {
      if (given == name) return value;
    }
    raise("the pattern asks for '{}', which is not given", name);
  }

  In in_;
  Args arguments_;
  const bool markup_;
  const String& pattern_;
  size_t automatic_ = 0;
  int counts_ = 0;  // 1: fields count themselves, 2: they have numbers
};

}  // namespace

Value percent_format(In in, const String& pattern, const Value& argument) {
  return PercentFormat(in, pattern, argument).run();
}

Value brace_format(In in, const String& pattern, Args arguments) {
  return BraceFormat(in, pattern, arguments).run();
}

}  // namespace contexture::jinja
