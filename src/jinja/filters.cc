#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <map>

#include "jinja/builtins.h"
#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

using In = Interpreter&;
using Args = const Arguments&;

template <std::string (*Change)(std::string_view)>
Value changed(In in, Value input, Args) {
  return in.heap().string(Change(text_of(in.heap(), input)));
}

/// Jinja2's own: words begin after white space, dashes and opening brackets.
std::string title_of_words(std::string_view text) {
  std::string out = lower(text);
  bool starts = true;
  for (size_t i = 0; i < out.size(); ++i) {
    if (starts) out[i] = upper(std::string_view(out).substr(i, 1))[0];
    starts = std::string_view("- \t\n\r\f\v({[<").find(out[i]) != std::string_view::npos;
  }
  return out;
}

Value trim(In in, Value input, Args a) {
  const std::string text = text_of(in.heap(), input);
  const Value chars = a.get(0, "chars", Value::none());
  if (!chars.is(Kind::string)) return in.heap().string(std::string(strip(text)));
  in.heap().spend_search(text.size(), 64 * chars.string->size());
  const std::string_view given = *chars.string;
  return in.heap().string(std::string(strip(text, Side::both, &given)));
}

Value replace_filter(In in, Value input, Args a) {
  const std::string text = text_of(in.heap(), input), from = text_of(in.heap(), a.need(0, "old")),
                    to = text_of(in.heap(), a.need(1, "new"));
  const Value count = a.get(2, "count", Value::none());
  const size_t most = count.is_whole() && count.whole() >= 0 ? static_cast<size_t>(count.whole()) : std::string::npos;
  in.heap().spend_search(text.size(), from.size());
  // What it grows by is paid before it is made.
  size_t found = from.empty() ? text.size() + 1 : 0;
  for (size_t at = from.empty() ? text.npos : text.find(from); at != text.npos;
       at = text.find(from, at + from.size())) {
    ++found;
  }
  if (to.size() > 0 && std::min(found, most) > (size_t{1} << 40) / to.size()) raise("a text grows beyond memory");
  in.heap().spend(std::min(found, most) * to.size());
  return in.heap().string(replace(text, from, to, most));
}

Value escape(In in, Value input, Args) {
  std::string text = text_of(in.heap(), input);
  for (const auto& [from, to] : {std::pair("&", "&amp;"), std::pair("<", "&lt;"), std::pair(">", "&gt;"),
                                 std::pair("'", "&#39;"), std::pair("\"", "&#34;")}) {
    text = replace(text, from, to);
  }
  in.heap().spend(4 * text.size());
  return in.heap().string(std::move(text));
}

Value indent(In in, Value input, Args a) {
  const Value width = a.get(0, "width", Value::of(int64_t{4}));
  if (!width.is(Kind::string) && (!width.is_whole() || width.whole() > 1000)) raise("indent by {}", kind_name(width));
  const std::string margin = width.is(Kind::string)
                                 ? *width.string
                                 : std::string(static_cast<size_t>(std::max<int64_t>(width.whole(), 0)), ' ');
  const bool first = truthy(a.get(1, "first", Value::of(false))), blank = truthy(a.get(2, "blank", Value::of(false)));
  const std::string text = text_of(in.heap(), input);
  std::string out = first ? margin : std::string();
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (at > 0) {
      if (end > at || blank) {
        in.heap().spend(margin.size());
        out += margin;
      }
    }
    out += text.substr(at, end - at);
    if (end < text.size()) out += '\n';
    at = end + 1;
  }
  return in.heap().string(std::move(out));
}

/// "%s", "%d", "%f", "%.2f", "%%".
Value format(In in, Value input, Args a) {
  const std::string pattern = text_of(in.heap(), input);
  std::string out;
  size_t place = 0;
  for (size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] != '%') {
      out += pattern[at];
      continue;
    }
    size_t precision = 6;
    if (pattern.substr(at + 1, 1) == "." && at + 2 < pattern.size() && pattern[at + 2] >= '0' &&
        pattern[at + 2] <= '9') {
      precision = static_cast<size_t>(pattern[at + 2] - '0');
      at += 2;
    }
    const char c = ++at < pattern.size() ? pattern[at] : ' ';
    if (c == '%') {
      out += c;
      continue;
    }
    const Value value = a.need(place++, "value");
    if (c == 's') {
      out += text_of(in.heap(), value);
    } else if ((c == 'd' || c == 'i') && value.is_whole()) {
      out += std::to_string(value.whole());
    } else if (c == 'f' && value.is_number()) {
      out += fmt::format("{:.{}f}", value.number(), precision);
    } else {
      raise("format knows %s, %d, %i, %f and %% alone");
    }
  }
  in.heap().spend(out.size());
  return in.heap().string(std::move(out));
}

Value length(In in, Value input, Args) {
  switch (input.kind) {
    case Kind::string:
      in.heap().spend(input.string->size());
      return Value::of(count_characters(*input.string));
    case Kind::dict:
      return Value::of(input.dict->entries.size());
    case Kind::list:
    case Kind::tuple:
      return Value::of(input.list->items.size());
    case Kind::undefined:
      return Value::of(int64_t{0});
    default:
      raise("{} has no length", kind_name(input));
  }
}

Value default_filter(In in, Value input, Args a) {
  const bool also_false = truthy(a.get(1, "boolean", Value::of(false)));
  if (!input.is(Kind::undefined) && (!also_false || truthy(input))) return input;
  return a.get(0, "default_value", in.heap().string({}));
}

/// With the arguments of transformers' own: ensure_ascii (which stays off), indent, separators (as they are),
/// sort_keys.
Value tojson(In in, Value input, Args a) {
  const Value indent = a.get(1, "indent", Value::none());
  if (indent.is_whole() && indent.whole() > 100) raise("tojson with an indent of {}", indent.whole());
  const int width = indent.is_whole() ? static_cast<int>(std::max<int64_t>(indent.whole(), 0)) : -1;
  return in.heap().string(json_of(in.heap(), input, width, truthy(a.get(3, "sort_keys", Value::of(false)))));
}

Value first(In in, Value input, Args) {
  const std::vector<Value> items = items_of(in.heap(), input);
  return items.empty() ? Value() : items.front();
}
Value last(In in, Value input, Args) {
  const std::vector<Value> items = items_of(in.heap(), input);
  return items.empty() ? Value() : items.back();
}
Value list(In in, Value input, Args) {
  return in.heap().list(items_of(in.heap(), input));
}

Value reverse(In in, Value input, Args) {
  std::vector<Value> items = items_of(in.heap(), input);
  std::reverse(items.begin(), items.end());
  if (!input.is(Kind::string)) return in.heap().list(std::move(items));
  std::string text;
  for (const Value& item : items) text += *item.string;
  return in.heap().string(std::move(text));
}

Value items(In in, Value input, Args) {
  std::vector<Value> list;
  if (!input.is(Kind::undefined)) {
    if (!input.is(Kind::dict)) raise("{} has no items", kind_name(input));
    for (const auto& [key, value] : input.dict->entries) list.push_back(in.heap().list({key, value}, Kind::tuple));
  }
  return in.heap().list(std::move(list));
}

/// "a.b.0": what it leads to from a value; `fallback`, where it is given, stands for every undefined step.
Value at_path(In in, Value value, const Value& path, const Value* fallback = nullptr) {
  if (path.is_whole()) return in.item(value, path);
  if (!path.is(Kind::string)) raise("an attribute's name must be a string");
  const std::string& text = *path.string;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('.', at), text.size());
    const std::string part = text.substr(at, end - at);
    const bool number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    value = in.item(value, number ? Value::of(static_cast<int64_t>(std::stoll(part))) : in.heap().string(part));
    if (fallback && value.is(Kind::undefined)) value = *fallback;
    at = end + 1;
  }
  return value;
}

/// What sort, unique, min and max compare: an attribute perhaps, and texts without their case.
Value sort_key(In in, Value value, const Value& attribute, bool case_sensitive) {
  if (!attribute.is(Kind::none)) value = at_path(in, value, attribute);
  if (!value.is(Kind::string) || case_sensitive) return value;
  return in.heap().string(lower(*value.string));
}

using Keyed = std::vector<std::pair<Value, Value>>;

/// The items with their keys; `place`: of the argument case_sensitive, which `attribute` follows.
Keyed keyed(In in, const Value& input, Args a, size_t place) {
  const bool case_sensitive = truthy(a.get(place, "case_sensitive", Value::of(false)));
  const Value attribute = a.get(place + 1, "attribute", Value::none());
  Keyed pairs;
  for (const Value& item : items_of(in.heap(), input)) {
    pairs.emplace_back(sort_key(in, item, attribute, case_sensitive), item);
  }
  return pairs;
}

Value sort(In in, Value input, Args a) {
  Keyed pairs = keyed(in, input, a, 1);
  const bool falling = truthy(a.get(0, "reverse", Value::of(false)));
  std::stable_sort(pairs.begin(), pairs.end(), [&](const auto& x, const auto& y) {
    return falling ? less(in.heap(), y.first, x.first) : less(in.heap(), x.first, y.first);
  });
  std::vector<Value> sorted;
  for (const auto& pair : pairs) sorted.push_back(pair.second);
  return in.heap().list(std::move(sorted));
}

Value unique(In in, Value input, Args a) {
  std::vector<Value> seen, kept;
  for (const auto& [key, item] : keyed(in, input, a, 0)) {
    const auto same = [&, &k = key](const Value& other) { return equal(in.heap(), k, other); };
    if (std::any_of(seen.begin(), seen.end(), same)) continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return in.heap().list(std::move(kept));
}

template <bool Largest>
Value extreme(In in, Value input, Args a) {
  const Keyed pairs = keyed(in, input, a, 0);
  if (pairs.empty()) return {};
  const auto* best = &pairs.front();
  for (const auto& pair : pairs) {
    if (Largest ? less(in.heap(), best->first, pair.first) : less(in.heap(), pair.first, best->first)) best = &pair;
  }
  return best->second;
}

Value dictsort(In in, Value input, Args a) {
  Arguments by;
  const Value second = a.get(1, "by", in.heap().string("key"));
  by.named = {{"attribute", Value::of(int64_t{second.is(Kind::string) && *second.string == "value"})},
              {"reverse", a.get(2, "reverse", Value::of(false))},
              {"case_sensitive", a.get(0, "case_sensitive", Value::of(false))}};
  return sort(in, items(in, input, {}), by);
}

Value join(In in, Value input, Args a) {
  const std::string between = text_of(in.heap(), a.get(0, "d", in.heap().string({})));
  const Value attribute = a.get(1, "attribute", Value::none());
  std::string text;
  bool first = true;
  for (const Value& item : items_of(in.heap(), input)) {
    in.heap().spend(between.size());
    if (!first) text += between;
    first = false;
    text += text_of(in.heap(), attribute.is(Kind::none) ? item : at_path(in, item, attribute));
  }
  return in.heap().string(std::move(text));
}

Value sum(In in, Value input, Args a) {
  const Value attribute = a.get(0, "attribute", Value::none());
  Value total = a.get(1, "start", Value::of(int64_t{0}));
  for (const Value& item : items_of(in.heap(), input)) {
    total = arithmetic(in.heap(), "+", total, attribute.is(Kind::none) ? item : at_path(in, item, attribute));
  }
  return total;
}

/// The arguments after the first `count`.
Arguments rest(In in, Args a, size_t count) {
  in.heap().spend(32 * (a.positional.size() + a.named.size()));
  Arguments others;
  others.positional.assign(a.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, a.positional.size())),
                           a.positional.end());
  others.named = a.named;
  return others;
}

Value map(In in, Value input, Args a) {
  std::vector<Value> mapped;
  const Value* attribute = a.positional.empty() ? a.find(0, "attribute") : nullptr;
  const Value* fallback = a.find(a.positional.size(), "default");
  if (!attribute && a.positional.empty()) raise("map needs a filter or an attribute");
  for (const Value& item : items_of(in.heap(), input)) {
    if (attribute) {
      mapped.push_back(at_path(in, item, *attribute, fallback));
    } else {
      mapped.push_back(in.filter(text_of(in.heap(), a.positional[0]), item, rest(in, a, 1)));
    }
  }
  return in.heap().list(std::move(mapped));
}

/// select, reject, selectattr, rejectattr.
template <bool Keep, bool ByAttribute>
Value selected(In in, Value input, Args a) {
  std::vector<Value> kept;
  const size_t place = ByAttribute ? 1 : 0;
  for (const Value& item : items_of(in.heap(), input)) {
    const Value value = ByAttribute ? at_path(in, item, a.need(0, "attribute")) : item;
    const bool is = a.positional.size() > place
                        ? in.test(text_of(in.heap(), a.positional[place]), value, rest(in, a, place + 1))
                        : truthy(value);
    if (is == Keep) kept.push_back(item);
  }
  return in.heap().list(std::move(kept));
}

/// Jinja2's looks for no entries of dictionaries.
Value attr(In in, Value input, Args a) {
  const Value name = in.heap().string(text_of(in.heap(), a.need(0, "name")));
  if (input.is(Kind::dict) && !find_method(Kind::dict, *name.string)) return {};
  return in.attribute(input, *name.string);
}

/// The number that a text begins and ends with; nothing where it is none.
bool read_number(std::string_view text, double& value) {
  const std::string copy(strip(text));
  if (copy.empty() || copy.find_first_of("xXpP(") != copy.npos) return false;
  char* end = nullptr;
  value = std::strtod(copy.c_str(), &end);
  return end == copy.c_str() + copy.size();
}

Value float_filter(In, Value input, Args a) {
  const Value fallback = a.get(0, "default", Value::of(0.0));
  double value = 0;
  if (input.is_number()) return Value::of(input.number());
  return input.is(Kind::string) && read_number(*input.string, value) ? Value::of(value) : fallback;
}

Value int_filter(In, Value input, Args a) {
  const Value fallback = a.get(0, "default", Value::of(int64_t{0}));
  if (input.is_whole()) return Value::of(input.whole());
  double value = 0;
  if (input.is(Kind::floating)) {
    value = input.floating;
  } else if (!input.is(Kind::string) || !read_number(*input.string, value)) {
    return fallback;
  } else if (input.string->find_first_of(".eEnN") == std::string::npos) {
    errno = 0;
    const int64_t whole = std::strtoll(std::string(strip(*input.string)).c_str(), nullptr, 10);
    if (errno == 0) return Value::of(whole);
  }
  return std::abs(value) < 9e18 ? Value::of(static_cast<int64_t>(value)) : fallback;
}

Value abs_filter(In in, Value input, Args) {
  if (input.is(Kind::floating)) return Value::of(std::abs(input.floating));
  if (!input.is_whole()) raise("{} has no absolute value", kind_name(input));
  return input.whole() < 0 ? arithmetic(in.heap(), "-", Value::of(int64_t{0}), input) : Value::of(input.whole());
}

Value round_filter(In in, Value input, Args a) {
  const Value precision = a.get(0, "precision", Value::of(int64_t{0}));
  const std::string method = text_of(in.heap(), a.get(1, "method", in.heap().string("common")));
  if (!input.is_number() || !precision.is_whole()) raise("{} cannot be rounded", kind_name(input));
  if (precision.whole() < 0 || precision.whole() > 30) raise("rounding to {} places", precision.whole());
  const double value = input.number(), scale = std::pow(10.0, static_cast<double>(precision.whole()));
  if (method == "ceil") return Value::of(std::ceil(value * scale) / scale);
  if (method == "floor") return Value::of(std::floor(value * scale) / scale);
  if (input.is_whole()) return Value::of(input.whole());
  if (!std::isfinite(value)) return input;
  return Value::of(std::strtod(fmt::format("{:.{}f}", value, precision.whole()).c_str(), nullptr));
}

}  // namespace

Builtin find_filter(std::string_view name) {
  static const std::map<std::string_view, Builtin> table = {
      {"abs", abs_filter},
      {"attr", attr},
      {"capitalize", changed<capitalize>},
      {"count", length},
      {"d", default_filter},
      {"default", default_filter},
      {"dictsort", dictsort},
      {"e", escape},
      {"escape", escape},
      {"first", first},
      {"float", float_filter},
      {"format", format},
      {"indent", indent},
      {"int", int_filter},
      {"items", items},
      {"join", join},
      {"last", last},
      {"length", length},
      {"list", list},
      {"lower", changed<lower>},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", selected<false, false>},
      {"rejectattr", selected<false, true>},
      {"replace", replace_filter},
      {"reverse", reverse},
      {"round", round_filter},
      {"safe", [](In, Value input, Args) { return input; }},
      {"select", selected<true, false>},
      {"selectattr", selected<true, true>},
      {"sort", sort},
      {"string", [](In in, Value input, Args) { return in.heap().string(text_of(in.heap(), input)); }},
      {"sum", sum},
      {"title", changed<title_of_words>},
      {"tojson", tojson},
      {"trim", trim},
      {"unique", unique},
      {"upper", changed<upper>},
  };
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace contexture::jinja
