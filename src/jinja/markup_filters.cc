#include <algorithm>
#include <charconv>

#include "jinja/builtins.h"
#include "jinja/strings.h"

/// Filters of markup: what is escaped, and what undoes it.
namespace contexture::jinja {
namespace {

Value safe(In in, const Value& input, Args) {
  return in.heap().string(soft_string(in.heap(), input).string(), /*markup=*/true);
}

Value escape(In in, const Value& input, Args) {
  return escaped(in.heap(), input);
}

Value force_escape(In in, const Value& input, Args) {
  return escaped(in.heap(), string_of(in.heap(), input));
}

/// Without what lies between `open` and `close`, as long as there are both.
MarkedText without(Heap& heap, const MarkedText& text, std::string_view open, std::string_view close) {
  const std::string& bytes = text.bytes();
  MarkedText out;
  heap.spend(2 * bytes.size());
  size_t at = 0;
  while (true) {
    const size_t start = bytes.find(open, at);
    const size_t end = start == bytes.npos ? start : bytes.find(close, start);
    if (end == bytes.npos) break;
    out.add(text, at, start);
    at = end + close.size();
  }
  out.add(text, at);
  return out;
}

/// The character that "&...;" at `at` stands for, and the bytes it takes; size 0: none.
Character entity_at(const std::string& text, size_t at) {
  constexpr std::pair<std::string_view, char32_t> kNames[] = {{"amp", '&'},  {"lt", '<'},    {"gt", '>'},
                                                              {"quot", '"'}, {"nbsp", 0xA0}, {"apos;", '\''}};
  const std::string_view rest = std::string_view(text).substr(at + 1);
  if (rest.starts_with('#')) {
    const bool is_hex = rest.substr(1).starts_with('x') || rest.substr(1).starts_with('X');
    const size_t from = is_hex ? 2 : 1;
    uint32_t code = 0;
    const auto [end, error] = std::from_chars(rest.data() + from, rest.data() + rest.size(), code, is_hex ? 16 : 10);
    if (end == rest.data() + from) return {0, 0};
    const bool is_character = error == std::errc() && code < 0x110000 && (code < 0xD800 || code > 0xDFFF) &&
                              code >= 0x20 && (code < 0x7F || code > 0x9F);
    if (!is_character && code != '\n' && code != '\t') raise("the entity '{}' is not known here", text.substr(at, 12));
    size_t size = 1 + static_cast<size_t>(end - rest.data());
    if (at + size < text.size() && text[at + size] == ';') ++size;
    return {code, size};
  }
  for (const auto& [name, code] : kNames) {
    if (!rest.starts_with(name)) continue;
    size_t size = 1 + name.size();
    if (!name.ends_with(';') && at + size < text.size() && text[at + size] == ';') ++size;
    return {code, size};
  }
  const char c = rest.empty() ? ' ' : rest[0];
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) raise("the entity '{}' is not known here", text.substr(at, 12));
  return {0, 0};
}

Value striptags(In in, const Value& input, Args) {
  Heap& heap = in.heap();
  const Value value = string_of(heap, input);
  const MarkedText text = without(heap, without(heap, value.string(), "<!--", "-->"), "<", ">");
  const Value words = string_methods().at("split").run(in, heap.string(text), {});
  Arguments all;
  all.positional = {words};
  const Value spaced = string_methods().at("join").run(in, heap.string(" "), all);
  const String& joined = spaced.string();
  Writer out(heap);
  for (size_t at = 0; at < joined.size();) {
    const Character c = joined.bytes()[at] == '&' ? entity_at(joined.bytes(), at) : Character{0, 0};
    if (c.size > 0) {
      out.add(utf8_of(c.code), joined.is_content(at));
    } else {
      out.add(joined, at, at + 1);
    }
    at += std::max<size_t>(c.size, 1);
  }
  return out.take();
}

Value xmlattr(In in, const Value& input, Args a) {
  if (!input.is(Kind::dict)) raise("xmlattr needs a dictionary and not {}", kind_name(input));
  Writer out(in.heap());
  bool first = !flag_argument(a, 0, "autospace", true);
  for (const auto& [key, value] : input.dict().entries) {
    if (value.is(Kind::none) || value.is(Kind::undefined)) continue;
    if (!key.is(Kind::string)) raise("an attribute's name must be a string and not {}", kind_name(key));
    if (key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      raise("'{}' cannot be an attribute's name", key.text().substr(0, 40));
    }
    if (!first) out.add(" ");
    first = false;
    out.add(escaped(in.heap(), key).string());
    out.add("=\"");
    out.add(escaped(in.heap(), value).string());
    out.add("\"");
  }
  return out.take();
}

}  // namespace

const Table& markup_filters() {
  static const Table table = {
      {"e", {escape, ""}},  {"escape", {escape, ""}},       {"forceescape", {force_escape, ""}},
      {"safe", {safe, ""}}, {"striptags", {striptags, ""}}, {"xmlattr", {xmlattr, "autospace?"}},
  };
  return table;
}

}  // namespace contexture::jinja
