#include <algorithm>
#include <cmath>

#include "jinja/strings.h"
#include "jinja/value.h"

/// Values as text: str(), repr(), markupsafe's escape() and json.dumps().
namespace contexture::jinja {
namespace {

/// A string with what `escape_of` gives for a character (nothing: it stays) in its place, as content where that was.
template <typename EscapeOf>
void add_escaped(Writer& out, const String& string, EscapeOf escape_of) {
  const std::string& text = string.bytes();
  size_t plain = 0;  // where what needs no escape begins
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    const std::string escape = escape_of(c);
    if (!escape.empty()) {
      out.add(string, plain, at);
      out.add(escape, string.is_content(at));
      plain = at + c.size;
    }
    at += c.size;
  }
  out.add(string, plain);
}

/// The two escapes that Python and JSON write "\u....": for what does not fit 16 bits, they differ.
std::string unicode_escape(char32_t code) {
  return fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
}

class ReprWriter {
 public:
  ReprWriter(Heap& heap, bool ascii) : heap_(heap), out_(heap), ascii_(ascii) {}

  void write(const Value& value) {
    heap_.spend(16);
    switch (value.kind) {
      case Kind::undefined:
        return out_.add("Undefined");
      case Kind::none:
        return out_.add("None");
      case Kind::boolean:
        return out_.add(value.boolean ? "True" : "False");
      case Kind::integer:
        return out_.add(std::to_string(value.integer));
      case Kind::floating:
        return out_.add(float_text(value.floating));
      case Kind::string:
        return write_string(value.string());
      case Kind::list:
        return write_items(value.items(), "[", "]");
      case Kind::tuple:
        return write_items(value.items(), "(", value.items().size() == 1 ? ",)" : ")");
      case Kind::view:
        out_.add(value.list().name);
        return write_items(value.items(), "([", "])");
      case Kind::dict:
        return write_entries(value.dict(), "{", "}");
      case Kind::name_space:
        return write_space(value.dict());
      case Kind::range:
        return write_range(value.range());
      case Kind::loop:
        return out_.add(fmt::format("<LoopContext {}/{}>", value.loop->index + 1, value.loop->size()));
      default:
        raise("{} has no text that is the same every time", kind_name(value));
    }
  }

  Value take() { return out_.take(); }

 private:
  void write_items(const std::vector<Value>& items, std::string_view open, std::string_view close) {
    out_.add(open);
    bool first = true;
    for (const Value& item : items) {
      if (!first) out_.add(", ");
      first = false;
      write(item);
    }
    out_.add(close);
  }

  void write_entries(const Dict& dict, std::string_view open, std::string_view close) {
    out_.add(open);
    bool first = true;
    for (const auto& [key, item] : dict.entries) {
      if (!first) out_.add(", ");
      first = false;
      write(key);
      out_.add(": ");
      write(item);
    }
    out_.add(close);
  }

  /// A namespace may hold itself.
  void write_space(const Dict& dict) {
    if (++spaces_ > 8) raise("values nested too deeply; do they hold themselves?");
    write_entries(dict, "<Namespace {", "}>");
    --spaces_;
  }

  void write_range(const Range& range) {
    out_.add(range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                             : fmt::format("range({}, {}, {})", range.start, range.stop, range.step));
  }

  void write_string(const String& string) {
    const std::string& text = string.bytes();
    const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
    if (string.is_markup) out_.add("Markup(");
    out_.add(std::string_view(&quote, 1));
    add_escaped(out_, string, [&](const Character& c) { return escape_of(c.code, quote); });
    out_.add(std::string_view(&quote, 1));
    if (string.is_markup) out_.add(")");
  }

  std::string escape_of(char32_t code, char quote) const {
    if (code == '\n') return "\\n";
    if (code == '\t') return "\\t";
    if (code == '\r') return "\\r";
    if (code == '\\' || code == static_cast<char32_t>(quote)) return {'\\', static_cast<char>(code)};
    if (code < 0x80 ? code >= 0x20 && code < 0x7F : !ascii_ && is_printable(code)) return {};
    if (code < 0x100) return fmt::format("\\x{:02x}", static_cast<uint32_t>(code));
    return code < 0x10000 ? unicode_escape(code) : fmt::format("\\U{:08x}", static_cast<uint32_t>(code));
  }

  Heap& heap_;
  Writer out_;
  bool ascii_;
  int spaces_ = 0;
};

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style)
      : heap_(heap),
        out_(heap),
        ascii_(style.ensure_ascii),
        sort_(style.sort_keys),
        indents_(!style.indent.is(Kind::none)) {
    read_indent(style.indent);
    read_separators(style.separators);
  }

  void write(const Value& value, size_t depth) {
    heap_.spend(16);
    switch (value.kind) {
      case Kind::string:
        return write_string(value.string());
      case Kind::list:
      case Kind::tuple:
        return write_list(value.items(), depth);
      case Kind::dict:
        return write_dict(value.dict().entries, depth);
      default:
        return out_.add(plain_text(value));
    }
  }

  Value take() { return out_.take(); }

 private:
  void read_indent(const Value& indent) {
    if (!indents_) return;
    if (indent.is(Kind::string)) {
      margin_ = indent;
    } else if (indent.is_whole()) {
      if (indent.whole() > 1000) raise("tojson with an indent of {}", indent.whole());
      margin_ = heap_.string(std::string(static_cast<size_t>(std::max<int64_t>(indent.whole(), 0)), ' '));
    } else {
      raise("tojson's indent must be a whole number, a string or none, and not {}", kind_name(indent));
    }
  }

  void read_separators(const Value& separators) {
    between_items_ = heap_.string(indents_ ? "," : ", ");
    after_key_ = heap_.string(": ");
    if (separators.is(Kind::none)) return;
    const bool is_pair = separators.is_list() && separators.items().size() == 2;
    if (!is_pair || !separators.items()[0].is(Kind::string) || !separators.items()[1].is(Kind::string)) {
      raise("tojson's separators must be two strings: what is between items, and what follows a key");
    }
    between_items_ = separators.items()[0];
    after_key_ = separators.items()[1];
  }

  static std::string plain_text(const Value& value) {
    switch (value.kind) {
      case Kind::none:
        return "null";
      case Kind::boolean:
        return value.boolean ? "true" : "false";
      case Kind::integer:
        return std::to_string(value.integer);
      case Kind::floating:
        if (std::isnan(value.floating)) return "NaN";
        if (std::isinf(value.floating)) return value.floating < 0 ? "-Infinity" : "Infinity";
        return float_text(value.floating);
      default:
        raise("{} cannot be written as JSON", kind_name(value));
    }
  }

  void write_string(const String& string) {
    out_.add("\"");
    add_escaped(out_, string, [&](const Character& c) { return escape_of(c); });
    out_.add("\"");
  }

  std::string escape_of(const Character& c) const {
    const char32_t code = c.code;
    constexpr std::string_view names = "\"\\nrtbf", values = "\"\\\n\r\t\b\f";
    if (const size_t i = code < 0x80 ? values.find(static_cast<char>(code)) : values.npos; i != values.npos) {
      return {'\\', names[i]};
    }
    if (code < 0x20) return unicode_escape(code);
    if (!ascii_ || code < 0x7F) return {};
    if (!c.is_valid) return unicode_escape(0xDC00 + code);  // a byte that is no UTF-8, as Python's surrogateescape
    if (code < 0x10000) return unicode_escape(code);
    return unicode_escape(0xD7C0 + (code >> 10)) + unicode_escape(0xDC00 + (code & 0x3FF));
  }

  void write_list(const std::vector<Value>& items, size_t depth) {
    if (items.empty()) return out_.add("[]");
    out_.add("[");
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i, depth + 1);
      write(items[i], depth + 1);
    }
    new_line(depth);
    out_.add("]");
  }

  void write_dict(std::vector<std::pair<Value, Value>> entries, size_t depth) {
    if (entries.empty()) return out_.add("{}");
    heap_.spend(entries.size() * 32);
    if (sort_) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto& a, const auto& b) { return less(heap_, a.first, b.first); });
    }
    out_.add("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i, depth + 1);
      write_key(entries[i].first);
      out_.add(after_key_.string());
      write(entries[i].second, depth + 1);
    }
    new_line(depth);
    out_.add("}");
  }

  void write_key(const Value& key) {
    if (key.is(Kind::string)) return write_string(key.string());
    out_.add("\"");
    out_.add(plain_text(key));
    out_.add("\"");
  }

  void separate(size_t i, size_t depth) {
    if (i > 0) out_.add(between_items_.string());
    new_line(depth);
  }

  void new_line(size_t depth) {
    if (!indents_) return;
    out_.add("\n");
    for (size_t i = 0; i < depth; ++i) out_.add(margin_.string());
  }

  Heap& heap_;
  Writer out_;
  bool ascii_, sort_, indents_;
  Value margin_, between_items_, after_key_;
};

}  // namespace

Value string_of(Heap& heap, const Value& value) {
  const Value text = soft_string(heap, value);
  return text.is_markup() ? heap.string(text.string(), /*markup=*/false) : text;
}

Value soft_string(Heap& heap, const Value& value) {
  if (value.is(Kind::undefined)) return heap.string("");
  return value.is(Kind::string) ? value : repr_of(heap, value);
}

Value repr_of(Heap& heap, const Value& value, bool ascii) {
  ReprWriter writer(heap, ascii);
  writer.write(value);
  return writer.take();
}

Value escaped(Heap& heap, const Value& value) {
  if (value.is_markup()) return value;
  const Value text = soft_string(heap, value);
  const String& string = text.string();
  Writer out(heap);
  size_t plain = 0;
  for (size_t at = 0; at < string.size(); ++at) {
    const char c = string.bytes()[at];
    const std::string_view escape = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '\'' ? "&#39;"
                                    : c == '"'  ? "&#34;"
                                                : "";
    if (escape.empty()) continue;
    out.add(string, plain, at);
    out.add(escape, string.is_content(at));
    plain = at + 1;
  }
  out.add(string, plain);
  return heap.string(out.text(), /*markup=*/true);
}

Value json_of(Heap& heap, const Value& value, const JsonStyle& style) {
  JsonWriter writer(heap, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace contexture::jinja
