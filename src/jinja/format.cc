#include "jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

constexpr size_t kWidest = 1 << 20;  // and no more places than that: a width is paid for, not checked by Python

struct Specification {
  std::string_view fill = " ";
  char align = 0, sign = '-', grouping = 0, type = 0;
  bool alternate = false, drops_minus_zero = false, has_zero = false;
  size_t width = 0;
  int precision = -1;
};

size_t read_count(std::string_view text, size_t& at) {
  size_t count = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    count = count * 10 + static_cast<size_t>(text[at] - '0');
    if (count > kWidest) raise("a format of more than {} characters", kWidest);
  }
  return count;
}

bool is_align(char c) {
  return c == '<' || c == '>' || c == '=' || c == '^';
}

Specification read_specification(std::string_view text) {
  Specification s;
  size_t at = 0;
  const auto take = [&](char c) { return at < text.size() && text[at] == c && ++at; };
  const size_t fill = text.empty() ? 0 : character_at(text, 0).size;
  if (fill > 0 && fill < text.size() && is_align(text[fill])) {
    s.fill = text.substr(0, fill);
    s.align = text[fill];
    at = fill + 1;
  } else if (!text.empty() && is_align(text[0])) {
    s.align = text[at++];
  }
  if (at < text.size() && std::string_view("+- ").find(text[at]) != std::string_view::npos) s.sign = text[at++];
  s.drops_minus_zero = take('z');
  s.alternate = take('#');
  s.has_zero = take('0');
  if (s.has_zero && !s.align) {
    s.align = '=';
    s.fill = "0";
  }
  s.width = read_count(text, at);
  if (at < text.size() && (text[at] == ',' || text[at] == '_')) s.grouping = text[at++];
  if (take('.')) {
    const size_t from = at;
    s.precision = static_cast<int>(read_count(text, at));
    if (at == from) raise("a format without its precision");
  }
  if (at < text.size()) s.type = text[at++];
  if (at < text.size()) raise("a format that is not known: '{}'", text.substr(0, 40));
  return s;
}

/// "1234567" with a mark after every three digits from the right, and zeros in front up to `width` with the marks.
std::string grouped(const std::string& digits, char mark, size_t size, size_t width) {
  std::string reversed;
  size_t count = 0;
  for (size_t i = digits.size(); i > 0 || reversed.size() < width; ++count) {
    if (count > 0 && count % size == 0) reversed += mark;
    reversed += i > 0 ? digits[--i] : '0';
  }
  std::reverse(reversed.begin(), reversed.end());
  return reversed;
}

/// Sign, prefix and digits with what fills the width.
void write_number(Writer& out, const Specification& s, bool is_negative, const std::string& prefix,
                  std::string digits) {
  std::string sign = is_negative ? "-" : s.sign == '-' ? "" : std::string(1, s.sign);
  sign += prefix;
  if (s.grouping) {
    const size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
    const size_t end = s.type == 'x' || s.type == 'X' || s.type == 'b' || s.type == 'o'
                           ? whole
                           : std::min(digits.find_first_not_of("0123456789"), digits.size());
    const size_t around = sign.size() + digits.size() - end;
    const size_t width = s.align == '=' && s.fill == "0" && s.width > around ? s.width - around : 0;
    const size_t size = s.type == 'x' || s.type == 'X' || s.type == 'b' || s.type == 'o' ? 4 : 3;
    digits = grouped(digits.substr(0, end), s.grouping, size, width) + digits.substr(end);
  }
  const size_t size = sign.size() + digits.size(), padding = s.width > size ? s.width - size : 0;
  const char align = s.align ? s.align : '>';
  const size_t before = align == '>' ? padding : align == '^' ? padding / 2 : 0;
  out.fill(s.fill, before);
  out.add(sign);
  if (align == '=') out.fill(s.fill, padding);
  out.add(digits);
  if (align != '=') out.fill(s.fill, padding - before);
}

void write_float(Writer& out, const Specification& s, double value) {
  if (s.type && std::string_view("eEfFgGn%").find(s.type) == std::string_view::npos) {
    raise("the format '{}' is none of a float", s.type);
  }
  if (s.grouping && s.type == 'n') raise("the format 'n' takes no '{}'", s.grouping);
  const char type = s.type == 'n' ? 'g' : s.type;
  std::string digits = digits_of(std::abs(value), type, s.precision, s.alternate);
  const bool is_zero = digits.find_first_of("123456789in") == digits.npos;
  write_number(out, s, std::signbit(value) && !(s.drops_minus_zero && is_zero), "", std::move(digits));
}

void write_whole(Writer& out, const Specification& s, int64_t value) {
  if (s.type && std::string_view("eEfFgG%").find(s.type) != std::string_view::npos) {
    return write_float(out, s, static_cast<double>(value));
  }
  if (s.precision >= 0) raise("a whole number's format takes no precision");
  if (s.drops_minus_zero) raise("a whole number's format takes no 'z'");
  if (s.type == 'c') {
    if (value < 0 || value > 0x10FFFF) raise("there is no character {}", value);
    return write_number(out, s, false, "", utf8_of(static_cast<char32_t>(value)));
  }
  if (s.type && std::string_view("dnboxX").find(s.type) == std::string_view::npos) {
    raise("the format '{}' is none of a whole number", s.type);
  }
  if (s.grouping == ',' && s.type && s.type != 'd') raise("the format '{}' takes no ','", s.type);
  const uint64_t size = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const bool has_prefix = s.alternate && s.type && s.type != 'd' && s.type != 'n';
  write_number(out, s, value < 0, has_prefix ? std::string{'0', s.type} : "", digits_of(size, s.type));
}

void write_text(Writer& out, const Specification& s, const String& text) {
  if (s.type && s.type != 's') raise("the format '{}' is none of a string", s.type);
  if (s.sign != '-' || s.alternate || s.grouping || s.drops_minus_zero || (s.align == '=' && !s.has_zero)) {
    raise("a string's format takes no sign, '#', '=' or grouping");
  }
  const size_t end = s.precision < 0 ? text.size() : place_of_character(text.bytes(), static_cast<size_t>(s.precision));
  const size_t size = count_characters(std::string_view(text.bytes()).substr(0, end));
  const size_t padding = s.width > size ? s.width - size : 0;
  const size_t before = s.align == '>' ? padding : s.align == '^' ? padding / 2 : 0;
  out.fill(s.fill, before);
  out.add(text, 0, end);
  out.fill(s.fill, padding - before);
}

}  // namespace

std::string digits_of(uint64_t value, char type) {
  char buffer[64];
  const int base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
  std::string digits(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value, base).ptr);
  if (type == 'X') std::transform(digits.begin(), digits.end(), digits.begin(), [](char c) { return std::toupper(c); });
  return digits;
}

std::string digits_of(double value, char type, int precision, bool alternate) {
  if (!std::isfinite(value)) {
    std::string text = std::isnan(value) ? "nan" : "inf";
    if (type == 'E' || type == 'F' || type == 'G') text = std::isnan(value) ? "NAN" : "INF";
    return type == '%' ? text + '%' : text;
  }
  if (type == 0 && precision < 0) return float_text(value);
  if (type == '%') return digits_of(value * 100, 'f', precision, alternate) + '%';
  if (precision < 0) precision = 6;
  // Without a letter, as "g" but with a digit after the point, for which it needs one of those that it may write.
  if (type == 0) {
    const int places = std::max(precision, 1);
    const std::string exponent = digits_of(value, 'e', places - 1, false);
    if (std::atoi(exponent.c_str() + exponent.find('e') + 1) == places - 1 && value != 0) {
      std::string mantissa = exponent.substr(0, exponent.find('e'));
      if (mantissa.find('.') != mantissa.npos) {
        mantissa.erase(mantissa.find_last_not_of('0') + 1);
        if (mantissa.ends_with('.')) mantissa.pop_back();
      }
      return mantissa + exponent.substr(exponent.find('e'));
    }
  }
  const std::string pattern = fmt::format("{{:{}.{}{}}}", alternate ? "#" : "", precision, type ? type : 'g');
  std::string text = fmt::format(fmt::runtime(pattern), value);
  if (type == 0 && text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

void write_formatted(In in, Writer& out, const Value& value, const MarkedText& specification) {
  if (specification.size() == 0) return out.add(value.is_markup() ? value : string_of(in.heap(), value));
  const Specification s = read_specification(specification.bytes());
  if (value.is(Kind::string)) return write_text(out, s, value.string());
  if (value.is(Kind::floating)) return write_float(out, s, value.floating);
  if (value.is_whole()) return write_whole(out, s, value.whole());
  raise("{} takes no format such as '{}'", kind_name(value), specification.bytes().substr(0, 40));
}

}  // namespace contexture::jinja
