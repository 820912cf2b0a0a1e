#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/format.h"
#include "jinja/strings.h"
#include "jinja/text_parts.h"

/// The methods of Python's str, but encode(): there are no bytes here. Those of Markup give Markup, and escape what
/// comes into the text.
namespace contexture::jinja {
namespace {

Value stripped(In in, const Value& self, Args a, Side side) {
  const String& text = self.string();
  const Value* chars = a.find(0, "chars");
  const bool is_given = chars && !chars->is(Kind::none);
  const std::string_view given =
      is_given ? std::string_view(string_argument(a, 0, "chars").bytes()) : std::string_view();
  in.heap().spend_search(text.size(), 64 * (given.size() + 1));
  const std::string_view kept = strip(text.bytes(), side, is_given ? &given : nullptr);
  const size_t from = static_cast<size_t>(kept.data() - text.bytes().data());
  return in.heap().part(text, from, from + kept.size());
}

// Splitting.

/// The words between white space; the last one holds the rest after `most` cuts.
std::vector<Value> split_words(Heap& heap, const String& string, size_t most) {
  const std::string_view text = string.bytes();
  std::vector<Value> parts;
  const auto skip = [&](size_t at, bool spaces) {
    while (at < text.size() && is_space(character_at(text, at).code) == spaces) at += character_at(text, at).size;
    return at;
  };
  for (size_t at = skip(0, true); at < text.size();) {
    const bool is_last = parts.size() == most;
    const size_t end = is_last ? text.size() : skip(at, false);
    parts.push_back(heap.part(string, at, end));
    at = skip(end, true);
  }
  return parts;
}

std::vector<Value> rsplit_words(Heap& heap, const String& string, size_t most) {
  std::string_view text = string.bytes();
  std::vector<Value> parts;
  for (text = strip(text, Side::right); !text.empty(); text = strip(text, Side::right)) {
    size_t from = 0;
    if (parts.size() < most) {
      for (size_t at = 0; at < text.size();) {
        const Character c = character_at(text, at);
        at += c.size;
        if (is_space(c.code)) from = at;
      }
      heap.spend(text.size());
    }
    parts.push_back(heap.part(string, from, text.size()));
    text = text.substr(0, from);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

const String& separator_argument(Args a) {
  const String& separator = string_argument(a, 0, "sep");
  if (separator.size() == 0) raise("split by an empty text");
  return separator;
}

Value split_at(In in, const Value& self, Args a, bool from_right) {
  Heap& heap = in.heap();
  const String& string = self.string();
  const std::string& text = string.bytes();
  const int64_t given = whole_argument(a, 1, "maxsplit", -1);
  const size_t most = given < 0 ? text.size() + 1 : static_cast<size_t>(given);
  heap.spend(text.size());
  const Value* sep = a.find(0, "sep");
  if (!sep || sep->is(Kind::none)) {
    return heap.list(from_right ? rsplit_words(heap, string, most) : split_words(heap, string, most));
  }
  const std::string& separator = separator_argument(a).bytes();
  heap.spend_search(text.size(), separator.size());
  std::vector<Value> parts;
  size_t from = 0, to = text.size();
  while (parts.size() < most) {
    const size_t next = from_right ? (to < separator.size() ? text.npos : text.rfind(separator, to - separator.size()))
                                   : text.find(separator, from);
    if (next == text.npos) break;
    if (from_right) {
      parts.push_back(heap.part(string, next + separator.size(), to));
      to = next;
    } else {
      parts.push_back(heap.part(string, from, next));
      from = next + separator.size();
    }
  }
  parts.push_back(heap.part(string, from, to));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return heap.list(std::move(parts));
}

template <bool FromRight>
Value partition(In in, const Value& self, Args a) {
  Heap& heap = in.heap();
  const String& text = self.string();
  const std::string& separator = separator_argument(a).bytes();
  heap.spend_search(text.size(), separator.size());
  const size_t at = FromRight ? text.bytes().rfind(separator) : text.bytes().find(separator);
  const Value nothing = heap.part(text, 0, 0);
  if (at == std::string::npos) {
    return heap.tuple(FromRight ? std::vector{nothing, nothing, self} : std::vector{self, nothing, nothing});
  }
  const size_t end = at + separator.size();
  return heap.tuple({heap.part(text, 0, at), heap.part(text, at, end), heap.part(text, end)});
}

Value splitlines(In in, const Value& self, Args a) {
  return in.heap().list(split_lines(in.heap(), self.string(), flag_argument(a, 0, "keepends", false)));
}

// Searching.

/// The bytes that start and end, two arguments, leave of a text; nothing where start lies behind the text.
struct Window {
  size_t from = 0, to = 0;
  bool is_there = true;

  Window(In in, const std::string& text, Args a) {
    const auto bound = [&](size_t place, int64_t fallback) {
      const Value* value = a.find(place, "");
      if (!value || value->is(Kind::none)) return fallback;
      if (!value->is_whole()) raise("start and end must be whole numbers and not {}", kind_name(*value));
      return value->whole();
    };
    in.heap().spend(a.positional.size() > 1 ? 3 * text.size() : 0);
    const int64_t size = a.positional.size() > 1 ? static_cast<int64_t>(count_characters(text)) : 0;
    int64_t start = bound(1, 0);
    if (start < 0) start = std::max<int64_t>(start + size, 0);
    is_there = start == 0 || start <= size;
    to = text.size();
    if (a.positional.size() > 2 && !a.positional[2].is(Kind::none)) {
      const int64_t end = bound(2, size);
      to = place_of_character(text, static_cast<size_t>(std::clamp<int64_t>(end < 0 ? end + size : end, 0, size)));
    }
    from = is_there ? place_of_character(text, static_cast<size_t>(start)) : 0;
    if (from > to) is_there = false;
  }

  std::string_view of(const std::string& text) const { return std::string_view(text).substr(from, to - from); }
};

template <bool FromRight, bool MustBeThere>
Value find_text(In in, const Value& self, Args a) {
  const std::string& text = self.text();
  const std::string& part = string_argument(a, 0, "sub").bytes();
  const Window window(in, text, a);
  in.heap().spend_search(text.size(), part.size());
  size_t at = std::string::npos;
  if (window.is_there) at = FromRight ? window.of(text).rfind(part) : window.of(text).find(part);
  if (at != std::string::npos) return Value::of(count_characters(std::string_view(text).substr(0, window.from + at)));
  if (MustBeThere) raise("the text that index() asks for is not there");
  return Value::of(int64_t{-1});
}

Value count_text(In in, const Value& self, Args a) {
  const std::string& part = string_argument(a, 0, "sub").bytes();
  const Window window(in, self.text(), a);
  if (!window.is_there) return Value::of(int64_t{0});
  const std::string_view text = window.of(self.text());
  in.heap().spend_search(text.size(), part.size());
  if (part.empty()) return Value::of(count_characters(text) + 1);
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++found;
  return Value::of(found);
}

/// startswith and endswith take a text or a tuple of them.
template <bool AtEnd>
Value has_affix(In in, const Value& self, Args a) {
  const Value& affix = a.need(0, "affix");
  const Window window(in, self.text(), a);
  if (!affix.is(Kind::string) && !affix.is(Kind::tuple)) {
    raise("a string or a tuple of strings is needed and not {}", kind_name(affix));
  }
  const auto has = [&](const Value& one) {
    if (!one.is(Kind::string)) raise("a string is needed and not {}", kind_name(one));
    in.heap().spend(one.text().size());
    if (!window.is_there) return false;
    const std::string_view text = window.of(self.text());
    return AtEnd ? text.ends_with(one.text()) : text.starts_with(one.text());
  };
  if (affix.is(Kind::string)) return Value::of(has(affix));
  return Value::of(std::any_of(affix.items().begin(), affix.items().end(), has));
}

template <bool AtEnd>
Value without_affix(In in, const Value& self, Args a) {
  const std::string &affix = string_argument(a, 0, "affix").bytes(), &text = self.text();
  if (AtEnd && text.ends_with(affix)) return in.heap().part(self.string(), 0, text.size() - affix.size());
  if (!AtEnd && text.starts_with(affix)) return in.heap().part(self.string(), affix.size());
  return self;
}

// Changing.

Value replace_text(In in, const Value& self, Args a) {
  const int64_t most = whole_argument(a, 2, "count", -1);
  const String& old = string_argument(a, 0, "old");
  string_argument(a, 1, "new");
  const Value with = self.is_markup() ? escaped(in.heap(), a.positional[1]) : a.positional[1];
  return replaced(in.heap(), self.string(), old, with.string(), most);
}

Value join_strings(In in, const Value& self, Args a) {
  const bool markup = self.is_markup();
  Writer out(in.heap(), markup);
  Iterator items(in.heap(), a.need(0, "iterable"));
  bool first = true;
  for (Value item; items.next(item);) {
    if (!item.is(Kind::string) && !markup) raise("join needs strings and not {}", kind_name(item));
    if (!first) out.add(self.string());
    first = false;
    out.add(item);
  }
  return out.take();
}

enum class Aligned { left, center, right };

template <Aligned To>
Value aligned(In in, const Value& self, Args a) {
  const String& text = self.string();
  const size_t size = count_characters(text.bytes());
  const int64_t width = whole_argument(a, 0, "width", 0);
  const Value* fill = a.find(1, "fillchar");
  if (fill && (!fill->is(Kind::string) || count_characters(fill->text()) != 1)) raise("fillchar must be one character");
  const Value filling = !fill ? in.heap().string(" ") : self.is_markup() ? escaped(in.heap(), *fill) : *fill;
  if (count_characters(filling.text()) != 1) raise("fillchar must be one character");
  if (width <= static_cast<int64_t>(size)) return self;
  const size_t padding = static_cast<size_t>(width) - size;
  in.heap().account().check_memory(padding);
  // As Python has it: of an odd number, the one more goes to the left where the width is odd.
  const size_t before = To == Aligned::left    ? 0
                        : To == Aligned::right ? padding
                                               : padding / 2 + (padding & static_cast<size_t>(width) & 1);
  Writer out(in.heap());
  out.fill(filling.text(), before);
  out.add(text);
  out.fill(filling.text(), padding - before);
  return in.heap().string(out.text(), text.is_markup);
}

Value zfill(In in, const Value& self, Args a) {
  const String& text = self.string();
  const int64_t width = whole_argument(a, 0, "width", 0), size = static_cast<int64_t>(count_characters(text.bytes()));
  if (width <= size) return self;
  in.heap().account().check_memory(static_cast<size_t>(width));
  const size_t sign = text.bytes().starts_with('+') || text.bytes().starts_with('-') ? 1 : 0;
  Writer out(in.heap());
  out.add(text, 0, sign);
  out.fill("0", static_cast<size_t>(width - size));
  out.add(text, sign);
  return in.heap().string(out.text(), text.is_markup);
}

Value expandtabs(In in, const Value& self, Args a) {
  const String& text = self.string();
  const int64_t size = whole_argument(a, 0, "tabsize", 8);
  if (size > 1000) raise("tabs of {} columns", size);
  Writer out(in.heap());
  int64_t column = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text.bytes(), at);
    if (c.code == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out.fill(" ", static_cast<size_t>(spaces));
      column += spaces;
    } else {
      out.add(text, at, at + c.size);
      column = c.code == '\n' || c.code == '\r' ? 0 : column + 1;
    }
    at += c.size;
  }
  return in.heap().string(out.text(), text.is_markup);
}

Value maketrans(In in, const Value&, Args a) {
  Heap& heap = in.heap();
  std::vector<std::pair<Value, Value>> table;
  const auto code = [](std::string_view text, size_t at) {
    return Value::of(static_cast<int64_t>(character_at(text, at).code));
  };
  if (a.positional.size() == 1) {
    if (!a.positional[0].is(Kind::dict)) raise("maketrans needs a dictionary, or texts");
    for (const auto& [key, value] : a.positional[0].dict().entries) {
      if (key.is(Kind::string) && count_characters(key.text()) != 1) raise("a key of maketrans is one character");
      heap.set(table, key.is(Kind::string) ? code(key.text(), 0) : key, value);
    }
    return heap.dict(std::move(table));
  }
  const std::string &from = string_argument(a, 0, "x").bytes(), &to = string_argument(a, 1, "y").bytes();
  if (count_characters(from) != count_characters(to)) raise("maketrans needs two texts of one length");
  for (size_t i = 0, j = 0; i < from.size(); i += character_at(from, i).size, j += character_at(to, j).size) {
    heap.set(table, code(from, i), code(to, j));
  }
  if (a.find(2, "z")) {
    const std::string& gone = string_argument(a, 2, "z").bytes();
    for (size_t i = 0; i < gone.size(); i += character_at(gone, i).size) heap.set(table, code(gone, i), Value::none());
  }
  return heap.dict(std::move(table));
}

Value translate(In in, const Value& self, Args a) {
  const Value& table = a.need(0, "table");
  if (!table.is(Kind::dict)) raise("translate needs a dictionary and not {}", kind_name(table));
  const String& text = self.string();
  Writer out(in.heap());
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text.bytes(), at);
    const Value* to = in.heap().find(table.dict(), Value::of(static_cast<int64_t>(c.code)));
    if (!to) {
      out.add(text, at, at + c.size);
    } else if (to->is(Kind::string)) {
      out.add(to->string());
    } else if (to->is_whole() && to->whole() >= 0 && to->whole() <= 0x10FFFF) {
      out.add(utf8_of(static_cast<char32_t>(to->whole())), text.is_content(at));
    } else if (!to->is(Kind::none)) {
      raise("translate cannot put {} into a text", kind_name(*to));
    }
    at += c.size;
  }
  return in.heap().string(out.text(), text.is_markup);
}

Value format_braces(In in, const Value& self, Args a) {
  return brace_format(in, self.string(), a);
}

Value format_map(In in, const Value& self, Args a) {
  const Value& mapping = a.need(0, "mapping");
  if (!mapping.is(Kind::dict)) raise("format_map needs a dictionary and not {}", kind_name(mapping));
  Arguments by_name;
  for (const auto& [key, value] : mapping.dict().entries) {
    if (key.is(Kind::string)) by_name.named.emplace_back(key.text(), value);
  }
  in.heap().spend(32 * by_name.named.size());
  return brace_format(in, self.string(), by_name);
}

template <TextChange Change>
Value changed_method(In in, const Value& self, Args) {
  return changed_text(in.heap(), self.string(), Change);
}

// Asking.

/// Of a text that is not empty, whether all characters are such.
template <bool (*Is)(char32_t), bool OfNone = false>
Value all_are(In in, const Value& self, Args) {
  const std::string& text = self.text();
  in.heap().spend(text.size());
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) {
    const Character c = character_at(text, at);
    if (!c.is_valid || !Is(c.code)) return Value::of(false);
  }
  return Value::of(OfNone || !text.empty());
}

bool is_letter_or_number(char32_t c) {
  return is_letter(c) || is_decimal(c) || is_digit(c) || is_numeric(c);
}
bool is_ascii(char32_t c) {
  return c < 0x80;
}

Value isidentifier(In in, const Value& self, Args) {
  const std::string& text = self.text();
  in.heap().spend(text.size());
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) {
    const Character c = character_at(text, at);
    if (!c.is_valid || !(c.code == '_' || is_letter(c.code) || (at > 0 && is_decimal(c.code)))) return Value::of(false);
  }
  return Value::of(!text.empty());
}

/// Upper case where a word begins, lower case within.
Value istitle(In in, const Value& self, Args) {
  const std::string& text = self.text();
  in.heap().spend(text.size());
  bool has = false, in_word = false;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) {
    const char32_t c = character_at(text, at).code;
    if (is_cased(c) && is_lower(c) != in_word) return Value::of(false);
    in_word = is_cased(c);
    has |= in_word;
  }
  return Value::of(has);
}

}  // namespace

const Table& string_methods() {
  static const Table table = {
      {"capitalize", {changed_method<TextChange::capitalize>, "/"}},
      {"casefold", {changed_method<TextChange::casefold>, "/"}},
      {"center", {aligned<Aligned::center>, "/ width fillchar?"}},
      {"count", {count_text, "/ sub start? end?"}},
      {"endswith", {has_affix<true>, "/ affix start? end?"}},
      {"expandtabs", {expandtabs, "tabsize?"}},
      {"find", {find_text<false, false>, "/ sub start? end?"}},
      {"format", {format_braces, "* **"}},
      {"format_map", {format_map, "/ mapping"}},
      {"index", {find_text<false, true>, "/ sub start? end?"}},
      {"isalnum", {all_are<is_letter_or_number>, "/"}},
      {"isalpha", {all_are<is_letter>, "/"}},
      {"isascii", {all_are<is_ascii, true>, "/"}},
      {"isdecimal", {all_are<is_decimal>, "/"}},
      {"isdigit", {all_are<is_digit>, "/"}},
      {"isidentifier", {isidentifier, "/"}},
      {"islower",
       {[](In in, const Value& self, Args) { return Value::of(has_case(in.heap(), self.text(), is_lower)); }, "/"}},
      {"isnumeric", {all_are<is_numeric>, "/"}},
      {"isprintable", {all_are<is_printable, true>, "/"}},
      {"isspace", {all_are<is_space>, "/"}},
      {"istitle", {istitle, "/"}},
      {"isupper",
       {[](In in, const Value& self, Args) { return Value::of(has_case(in.heap(), self.text(), is_upper)); }, "/"}},
      {"join", {join_strings, "/ iterable"}},
      {"ljust", {aligned<Aligned::left>, "/ width fillchar?"}},
      {"lower", {changed_method<TextChange::lower>, "/"}},
      {"lstrip", {[](In in, const Value& self, Args a) { return stripped(in, self, a, Side::left); }, "/ chars?"}},
      {"maketrans", {maketrans, "/ x y? z?"}},
      {"partition", {partition<false>, "/ sep"}},
      {"removeprefix", {without_affix<false>, "/ affix"}},
      {"removesuffix", {without_affix<true>, "/ affix"}},
      {"replace", {replace_text, "/ old new count?"}},
      {"rfind", {find_text<true, false>, "/ sub start? end?"}},
      {"rindex", {find_text<true, true>, "/ sub start? end?"}},
      {"rjust", {aligned<Aligned::right>, "/ width fillchar?"}},
      {"rpartition", {partition<true>, "/ sep"}},
      {"rsplit", {[](In in, const Value& self, Args a) { return split_at(in, self, a, true); }, "sep? maxsplit?"}},
      {"rstrip", {[](In in, const Value& self, Args a) { return stripped(in, self, a, Side::right); }, "/ chars?"}},
      {"split", {[](In in, const Value& self, Args a) { return split_at(in, self, a, false); }, "sep? maxsplit?"}},
      {"splitlines", {splitlines, "keepends?"}},
      {"startswith", {has_affix<false>, "/ affix start? end?"}},
      {"strip", {[](In in, const Value& self, Args a) { return stripped(in, self, a, Side::both); }, "/ chars?"}},
      {"swapcase", {changed_method<TextChange::swapcase>, "/"}},
      {"title", {changed_method<TextChange::title>, "/"}},
      {"translate", {translate, "/ table"}},
      {"upper", {changed_method<TextChange::upper>, "/"}},
      {"zfill", {zfill, "/ width"}},
  };
  return table;
}

}  // namespace contexture::jinja
