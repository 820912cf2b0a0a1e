#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/format.h"
#include "jinja/strings.h"
#include "jinja/text_parts.h"

/// Filters that make texts of texts.
namespace contexture::jinja {
namespace {

/// The method of the same name, of a text or what str() makes of a value.
Value by_method(In in, std::string_view name, const Value& input, Args a) {
  return string_methods().at(name).run(in, soft_string(in.heap(), input), a);
}

Value title_filter(In in, const Value& input, Args) {
  const Value value = soft_string(in.heap(), input);
  const String& text = value.string();
  Writer out(in.heap());
  bool starts = true;  // words begin after white space, dashes and opening brackets
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text.bytes(), at);
    if (c.is_valid) {
      out.add(starts ? upper(c.code) : lower(c.code), text.is_content(at));
    } else {
      out.add(text, at, at + 1);
    }
    starts = is_space(c.code) ||
             (c.code < 0x80 && std::string_view("-({[<").find(static_cast<char>(c.code)) != std::string_view::npos);
    at += c.size;
  }
  return out.take();
}

Value replace_filter(In in, const Value& input, Args a) {
  Heap& heap = in.heap();
  const Value* count = a.find(2, "count");
  const int64_t most = !count || count->is(Kind::none) ? -1 : whole_argument(a, 2, "count", -1);
  const Value text = string_of(heap, input), from = string_of(heap, a.need(0, "old")),
              to = string_of(heap, a.need(1, "new"));
  return replaced(heap, text.string(), from.string(), to.string(), most);
}

Value indent_filter(In in, const Value& input, Args a) {
  Heap& heap = in.heap();
  if (!input.is(Kind::string)) raise("indent needs a string and not {}", kind_name(input));
  const Value* width = a.find(0, "width");
  Value margin;
  if (width && width->is(Kind::string)) {
    margin = *width;
  } else {
    const int64_t size = whole_argument(a, 0, "width", 4);
    if (size > 1000) raise("indent by {}", size);
    margin = heap.string(std::string(static_cast<size_t>(std::max<int64_t>(size, 0)), ' '));
  }
  const bool first = flag_argument(a, 1, "first", false), blank = flag_argument(a, 2, "blank", false);
  Writer text(heap);
  text.add(input.string());
  text.add("\n");  // as Jinja2 does, so that a line that is empty at the end counts
  const Value whole = text.take();
  const std::vector<Value> lines = split_lines(heap, whole.string(), false);
  Writer out(heap);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.add("\n");
    if (i == 0 ? first : blank || !lines[i].text().empty()) out.add(margin.string());
    out.add(lines[i].string());
  }
  return heap.string(out.text(), input.is_markup());
}

Value center_filter(In in, const Value& input, Args a) {
  Arguments width;
  width.positional = {Value::of(whole_argument(a, 0, "width", 80))};
  return by_method(in, "center", input, width);
}

Value format_filter(In in, const Value& input, Args a) {
  if (!a.positional.empty() && !a.named.empty()) raise("format takes values with names or without, not both");
  const Value pattern = soft_string(in.heap(), input);
  if (a.named.empty()) return percent_format(in, pattern.string(), in.heap().tuple(a.positional));
  std::vector<std::pair<Value, Value>> values;
  for (const auto& [name, value] : a.named) in.heap().set(values, in.heap().string(name), value);
  return percent_format(in, pattern.string(), in.heap().dict(std::move(values)));
}

Value truncate_filter(In in, const Value& input, Args a) {
  Heap& heap = in.heap();
  const Value text = input.is(Kind::undefined) ? heap.string("") : input;
  if (!text.is(Kind::string)) raise("truncate needs a string and not {}", kind_name(input));
  const Value end = a.get(2, "end", heap.string("..."));
  if (!end.is(Kind::string)) raise("truncate's end must be a string and not {}", kind_name(end));
  const int64_t length = whole_argument(a, 0, "length", 255),
                end_size = static_cast<int64_t>(count_characters(end.text()));
  const Value* given = a.find(3, "leeway");
  const int64_t leeway = !given || given->is(Kind::none) ? 5 : whole_argument(a, 3, "leeway", 5);
  if (length < end_size || leeway < 0) raise("truncate to {} characters with a leeway of {}", length, leeway);
  heap.spend(text.text().size());
  const uint64_t most = static_cast<uint64_t>(length) + static_cast<uint64_t>(leeway);
  if (count_characters(text.text()) <= most) return text;
  size_t kept = place_of_character(text.text(), static_cast<size_t>(length - end_size));
  if (!flag_argument(a, 1, "killwords", false)) {
    const size_t space = std::string_view(text.text()).substr(0, kept).rfind(' ');
    kept = space == std::string::npos ? kept : space;
  }
  return arithmetic(in, "+", heap.part(text.string(), 0, kept), end);
}

Value wordcount_filter(In in, const Value& input, Args) {
  const Value value = soft_string(in.heap(), input);
  const std::string& text = value.text();
  in.heap().spend(text.size());
  size_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) {
    const Character c = character_at(text, at);
    const bool is_word = c.is_valid && (c.code == '_' || is_letter(c.code) || is_numeric(c.code) || is_digit(c.code));
    count += is_word && !in_word;
    in_word = is_word;
  }
  return Value::of(count);
}

/// As a part of a URL; what it makes of content is content.
void write_quoted(Writer& out, const String& text, bool for_query) {
  for (size_t at = 0; at < text.size(); ++at) {
    const unsigned char c = static_cast<unsigned char>(text.bytes()[at]);
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                          c == '.' || c == '-' || c == '~' || (c == '/' && !for_query);
    if (is_plain) {
      out.add(text, at, at + 1);
    } else {
      out.add(c == ' ' && for_query ? "+" : fmt::format("%{:02X}", c), text.is_content(at));
    }
  }
}

Value urlencode_filter(In in, const Value& input, Args) {
  Heap& heap = in.heap();
  Writer out(heap);
  if (input.is(Kind::string) || input.is_number() || input.is(Kind::none)) {
    write_quoted(out, string_of(heap, input).string(), false);
    return out.take();
  }
  const bool is_dict = input.is(Kind::dict);
  Iterator pairs(heap, is_dict ? items_view_of(heap, input) : input);
  bool first = true;
  for (Value pair; pairs.next(pair);) {
    const std::vector<Value> parts = items_of(heap, pair);
    if (parts.size() != 2) raise("urlencode needs pairs of a key and a value");
    if (!first) out.add("&");
    first = false;
    write_quoted(out, string_of(heap, parts[0]).string(), true);
    out.add("=");
    write_quoted(out, string_of(heap, parts[1]).string(), true);
  }
  return out.take();
}

}  // namespace

const Table& text_filters() {
  static const Table table = {
      {"capitalize", {[](In in, const Value& v, Args a) { return by_method(in, "capitalize", v, a); }, ""}},
      {"center", {center_filter, "width?"}},
      {"format", {format_filter, "* **"}},
      {"indent", {indent_filter, "width? first? blank?"}},
      {"lower", {[](In in, const Value& v, Args a) { return by_method(in, "lower", v, a); }, ""}},
      {"replace", {replace_filter, "old new count?"}},
      {"string", {[](In in, const Value& v, Args) { return soft_string(in.heap(), v); }, ""}},
      {"title", {title_filter, ""}},
      {"trim", {[](In in, const Value& v, Args a) { return by_method(in, "strip", v, a); }, "chars?"}},
      {"truncate", {truncate_filter, "length? killwords? end? leeway?"}},
      {"upper", {[](In in, const Value& v, Args a) { return by_method(in, "upper", v, a); }, ""}},
      {"urlencode", {urlencode_filter, ""}},
      {"wordcount", {wordcount_filter, ""}},
  };
  return table;
}

}  // namespace contexture::jinja
