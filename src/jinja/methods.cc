#include <algorithm>
#include <map>

#include "jinja/builtins.h"
#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

using In = Interpreter&;
using Args = const Arguments&;
using Table = std::map<std::string_view, Builtin>;

const std::string& string_argument(Args a, size_t place, std::string_view name) {
  const Value value = a.need(place, name);
  if (!value.is(Kind::string)) raise("the argument '{}' must be a string and not {}", name, kind_name(value));
  return *value.string;
}

int64_t whole_argument(Args a, size_t place, std::string_view name, int64_t fallback) {
  const Value value = a.get(place, name, Value::of(fallback));
  if (!value.is_whole()) raise("the argument '{}' must be a whole number and not {}", name, kind_name(value));
  return value.whole();
}

Value stripped(In in, const Value& self, Args a, Side side) {
  const Value chars = a.get(0, "chars", Value::none());
  in.heap().spend_search(self.string->size(), 64);
  if (chars.is(Kind::none)) return in.heap().string(std::string(strip(*self.string, side)));
  const std::string_view given = string_argument(a, 0, "chars");
  in.heap().spend_search(self.string->size(), 64 * given.size());
  return in.heap().string(std::string(strip(*self.string, side, &given)));
}

/// The words between white space; the last one holds the rest after `most` cuts.
std::vector<Value> split_words(Heap& heap, std::string_view text, size_t most) {
  std::vector<Value> parts;
  for (text = strip(text, Side::left); !text.empty(); text = strip(text, Side::left)) {
    size_t end = 0;
    while (end < text.size() && !is_space(character_at(text, end).code)) end += character_at(text, end).size;
    if (parts.size() == most) end = text.size();
    parts.push_back(heap.string(std::string(text.substr(0, end))));
    text.remove_prefix(end);
    if (parts.size() == most + 1) break;
  }
  return parts;
}

Value split(In in, Value self, Args a) {
  const std::string_view text = *self.string;
  const int64_t given = whole_argument(a, 1, "maxsplit", -1);
  const size_t most = given < 0 ? text.size() + 1 : static_cast<size_t>(given);
  in.heap().spend(text.size());
  if (a.get(0, "sep", Value::none()).is(Kind::none)) return in.heap().list(split_words(in.heap(), text, most));
  const std::string_view separator = string_argument(a, 0, "sep");
  if (separator.empty()) raise("split by an empty text");
  in.heap().spend_search(text.size(), separator.size());
  std::vector<Value> parts;
  size_t at = 0;
  while (parts.size() < most) {
    const size_t next = text.find(separator, at);
    if (next == text.npos) break;
    parts.push_back(in.heap().string(std::string(text.substr(at, next - at))));
    at = next + separator.size();
  }
  parts.push_back(in.heap().string(std::string(text.substr(at))));
  return in.heap().list(std::move(parts));
}

Value rsplit(In in, Value self, Args a) {
  std::string_view text = *self.string;
  const int64_t given = whole_argument(a, 1, "maxsplit", -1);
  if (given < 0) return split(in, self, a);
  const std::string_view separator = string_argument(a, 0, "sep");
  if (separator.empty()) raise("split by an empty text");
  in.heap().spend_search(text.size(), separator.size());
  std::vector<Value> parts;
  while (parts.size() < static_cast<size_t>(given)) {
    const size_t next = text.rfind(separator);
    if (next == text.npos) break;
    parts.push_back(in.heap().string(std::string(text.substr(next + separator.size()))));
    text = text.substr(0, next);
  }
  parts.push_back(in.heap().string(std::string(text)));
  std::reverse(parts.begin(), parts.end());
  return in.heap().list(std::move(parts));
}

Value splitlines(In in, Value self, Args) {
  std::vector<Value> lines;
  for (std::string_view text = *self.string; !text.empty();) {
    const size_t end = std::min(text.find_first_of("\r\n"), text.size());
    lines.push_back(in.heap().string(std::string(text.substr(0, end))));
    text.remove_prefix(end);
    text.remove_prefix(text.starts_with("\r\n") ? 2 : text.empty() ? 0 : 1);
  }
  return in.heap().list(std::move(lines));
}

/// startswith and endswith take a text or a tuple of them.
template <typename Has>
Value has_affix(const Value& self, Args a, Has has) {
  const Value affix = a.need(0, "affix");
  if (affix.is(Kind::string)) return Value::of(has(*self.string, *affix.string));
  if (!affix.is(Kind::tuple)) raise("a string or a tuple of strings is needed and not {}", kind_name(affix));
  for (const Value& one : affix.list->items) {
    if (one.is(Kind::string) && has(*self.string, *one.string)) return Value::of(true);
  }
  return Value::of(false);
}

Value startswith(In, Value self, Args a) {
  return has_affix(self, a, [](const std::string& text, const std::string& affix) { return text.starts_with(affix); });
}
Value endswith(In, Value self, Args a) {
  return has_affix(self, a, [](const std::string& text, const std::string& affix) { return text.ends_with(affix); });
}

Value replace_method(In in, Value self, Args a) {
  return in.filter("replace", self, a);
}

Value remove_affix(In in, const Value& self, Args a, bool prefix) {
  const std::string& affix = string_argument(a, 0, "affix");
  std::string_view text = *self.string;
  if (prefix && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!prefix && text.ends_with(affix)) text.remove_suffix(affix.size());
  return in.heap().string(std::string(text));
}

Value find(In in, Value self, Args a) {
  const std::string& part = string_argument(a, 0, "sub");
  in.heap().spend_search(self.string->size(), part.size());
  const size_t at = self.string->find(part);
  if (at == std::string::npos) return Value::of(int64_t{-1});
  return Value::of(count_characters(std::string_view(*self.string).substr(0, at)));
}

Value count_text(In in, Value self, Args a) {
  const std::string& part = string_argument(a, 0, "sub");
  if (part.empty()) return Value::of(count_characters(*self.string) + 1);
  in.heap().spend_search(self.string->size(), part.size());
  size_t count = 0;
  for (size_t at = self.string->find(part); at != std::string::npos; at = self.string->find(part, at + part.size())) {
    ++count;
  }
  return Value::of(count);
}

Value string_join(In in, Value self, Args a) {
  std::string text;
  bool first = true;
  for (const Value& item : items_of(in.heap(), a.need(0, "iterable"))) {
    if (!item.is(Kind::string)) raise("join needs strings and not {}", kind_name(item));
    in.heap().spend(item.string->size() + self.string->size());
    if (!first) text += *self.string;
    first = false;
    text += *item.string;
  }
  return in.heap().string(std::move(text));
}

/// "{} and {0} and {name}"; formats after a colon are not known.
Value string_format(In in, Value self, Args a) {
  const std::string_view text = *self.string;
  std::string out;
  size_t automatic = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if ((c == '{' || c == '}') && at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      ++at;
    } else if (c == '{') {
      const size_t close = std::min(text.find('}', at), text.size());
      const std::string_view field = text.substr(at + 1, close - at - 1);
      const bool numbered = !field.empty() && field.find_first_not_of("0123456789") == field.npos && field.size() < 6;
      const size_t place = field.empty() ? automatic++ : numbered ? std::stoul(std::string(field)) : size_t{1} << 30;
      out += text_of(in.heap(), a.need(place, field));
      at = close;
    } else {
      in.heap().spend(1);
      out += c;
    }
  }
  return in.heap().string(std::move(out));
}

template <std::string (*Change)(std::string_view)>
Value string_changed(In in, Value self, Args) {
  return in.heap().string(Change(*self.string));
}

template <typename Is>
bool all_are(const std::string& text, Is is) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is);
}

const Table& string_methods() {
  static const Table table = {
      {"upper", string_changed<upper>},
      {"lower", string_changed<lower>},
      {"title", string_changed<title>},
      {"capitalize", string_changed<capitalize>},
      {"strip", [](In in, Value self, Args a) { return stripped(in, self, a, Side::both); }},
      {"lstrip", [](In in, Value self, Args a) { return stripped(in, self, a, Side::left); }},
      {"rstrip", [](In in, Value self, Args a) { return stripped(in, self, a, Side::right); }},
      {"split", split},
      {"rsplit", rsplit},
      {"splitlines", splitlines},
      {"startswith", startswith},
      {"endswith", endswith},
      {"removeprefix", [](In in, Value self, Args a) { return remove_affix(in, self, a, true); }},
      {"removesuffix", [](In in, Value self, Args a) { return remove_affix(in, self, a, false); }},
      {"replace", replace_method},
      {"find", find},
      {"count", count_text},
      {"join", string_join},
      {"format", string_format},
      {"isdigit", [](In, Value self,
                     Args) { return Value::of(all_are(*self.string, [](char c) { return c >= '0' && c <= '9'; })); }},
      {"isspace", [](In, Value self, Args) { return Value::of(!self.string->empty() && strip(*self.string).empty()); }},
      {"islower", [](In in, Value self, Args a) { return Value::of(in.test("lower", self, a)); }},
      {"isupper", [](In in, Value self, Args a) { return Value::of(in.test("upper", self, a)); }},
  };
  return table;
}

Value append(In in, Value self, Args a) {
  in.heap().spend(32);
  self.list->items.push_back(a.need(0, "object"));
  return Value::none();
}

Value index_of(In in, Value self, Args a) {
  const std::vector<Value>& items = self.list->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(in.heap(), items[i], a.need(0, "value"))) return Value::of(i);
  }
  raise("the list does not hold the value that index() asks for");
}

Value count_items(In in, Value self, Args a) {
  size_t count = 0;
  for (const Value& item : self.list->items) count += equal(in.heap(), item, a.need(0, "value"));
  return Value::of(count);
}

Value keys(In in, Value self, Args) {
  return in.heap().list(items_of(in.heap(), self));
}

Value values(In in, Value self, Args) {
  std::vector<Value> list;
  for (const auto& entry : self.dict->entries) list.push_back(entry.second);
  return in.heap().list(std::move(list));
}

Value get(In in, Value self, Args a) {
  const Value* found = in.heap().find(*self.dict, a.need(0, "key"));
  return found ? *found : a.get(1, "default", Value::none());
}

Value cycle(In, Value self, Args a) {
  if (a.positional.empty()) raise("cycle() has nothing to choose from");
  return a.positional[self.loop->index % a.positional.size()];
}

Value loop_changed(In in, Value self, Args a) {
  const Value now = in.heap().list(a.positional, Kind::tuple);
  Loop& loop = *self.loop;
  if (loop.has_changed_value && equal(in.heap(), loop.changed_value, now)) return Value::of(false);
  loop.has_changed_value = true;
  loop.changed_value = now;
  return Value::of(true);
}

}  // namespace

Builtin find_method(Kind kind, std::string_view name) {
  static const Table none = {};
  static const Table tuples = {{"index", index_of}, {"count", count_items}};
  static const Table lists = {{"append", append}, {"index", index_of}, {"count", count_items}};
  static const Table dicts = {{"keys", keys},
                              {"values", values},
                              {"get", get},
                              {"items", [](In in, Value self, Args a) { return in.filter("items", self, a); }}};
  static const Table loops = {{"cycle", cycle}, {"changed", loop_changed}};
  const Table& table = kind == Kind::string  ? string_methods()
                       : kind == Kind::list  ? lists
                       : kind == Kind::tuple ? tuples
                       : kind == Kind::dict  ? dicts
                       : kind == Kind::loop  ? loops
                                             : none;
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace contexture::jinja
