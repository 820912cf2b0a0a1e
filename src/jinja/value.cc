#include "jinja/value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

/// Values may hold themselves, and lists of lists of the same list print without end: both stop here.
constexpr int kDeepestValue = 100;

void check_depth(Heap& heap, int depth) {
  heap.spend(16);
  if (depth > kDeepestValue) raise("values nested deeper than {} levels; do they hold themselves?", kDeepestValue);
}

bool equal_at(Heap& heap, const Value& a, const Value& b, int depth) {
  check_depth(heap, depth);
  if (a.is_number() && b.is_number()) {
    return a.is_whole() && b.is_whole() ? a.whole() == b.whole() : a.number() == b.number();
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      heap.spend(a.string->size() == b.string->size() ? a.string->size() : 0);
      return *a.string == *b.string;
    case Kind::list:
    case Kind::tuple: {
      const std::vector<Value>&x = a.list->items, &y = b.list->items;
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i) {
        if (!equal_at(heap, x[i], y[i], depth + 1)) return false;
      }
      return true;
    }
    case Kind::dict: {
      if (a.dict->entries.size() != b.dict->entries.size()) return false;
      for (const auto& [key, value] : a.dict->entries) {
        const Value* other = heap.find(*b.dict, key);
        if (!other || !equal_at(heap, value, *other, depth + 1)) return false;
      }
      return true;
    }
    default:
      return a.dict == b.dict;  // the same object
  }
}

bool less_at(Heap& heap, const Value& a, const Value& b, int depth) {
  check_depth(heap, depth);
  if (a.is_number() && b.is_number()) {
    return a.is_whole() && b.is_whole() ? a.whole() < b.whole() : a.number() < b.number();
  }
  if (a.is(Kind::string) && b.is(Kind::string)) {
    heap.spend(std::min(a.string->size(), b.string->size()));
    return *a.string < *b.string;  // UTF-8 sorts as its characters do
  }
  if (a.is_list() && a.kind == b.kind) {
    const std::vector<Value>&x = a.list->items, &y = b.list->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal_at(heap, x[i], y[i], depth + 1)) return less_at(heap, x[i], y[i], depth + 1);
    }
    return x.size() < y.size();
  }
  raise("{} and {} have no order", kind_name(a), kind_name(b));
}

/// Appends texts and pays for them.
class Writer {
 public:
  explicit Writer(Heap& heap) : heap_(heap) {}
  void add(std::string_view part) {
    heap_.spend(part.size());
    text += part;
  }
  std::string text;

 private:
  Heap& heap_;
};

bool is_printable(char32_t c) {
  return (c >= 0x20 && c < 0x7F) ||
         (c > 0xA0 && c != 0xAD && !is_space(c) && (c < 0x200B || c > 0x200F) && c != 0xFEFF);
}

std::string quoted_text(std::string_view text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const auto [code, size] = character_at(text, at);
    if (code == '\n') {
      out += "\\n";
    } else if (code == '\t') {
      out += "\\t";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\\' || code == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(code);
    } else if (is_printable(code)) {
      out += text.substr(at, size);
    } else if (code < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(code));
    } else if (code < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(code));
    }
    at += size;
  }
  return out + quote;
}

void write_repr(Heap& heap, const Value& value, Writer& out, int depth);

void write_items(Heap& heap, const std::vector<Value>& items, Writer& out, int depth) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out.add(", ");
    first = false;
    write_repr(heap, item, out, depth + 1);
  }
}

void write_repr(Heap& heap, const Value& value, Writer& out, int depth) {
  check_depth(heap, depth);
  switch (value.kind) {
    case Kind::undefined:
      return out.add("Undefined");
    case Kind::none:
      return out.add("None");
    case Kind::boolean:
      return out.add(value.boolean ? "True" : "False");
    case Kind::integer:
      return out.add(std::to_string(value.integer));
    case Kind::floating:
      return out.add(float_text(value.floating));
    case Kind::string:
      return out.add(quoted_text(*value.string));
    case Kind::list:
    case Kind::tuple:
      out.add(value.is(Kind::list) ? "[" : "(");
      write_items(heap, value.list->items, out, depth);
      return out.add(value.is(Kind::list) ? "]" : value.list->items.size() == 1 ? ",)" : ")");
    case Kind::dict:
    case Kind::name_space: {
      out.add(value.is(Kind::dict) ? "{" : "<Namespace {");
      bool first = true;
      for (const auto& [key, item] : value.dict->entries) {
        if (!first) out.add(", ");
        first = false;
        write_repr(heap, key, out, depth + 1);
        out.add(": ");
        write_repr(heap, item, out, depth + 1);
      }
      return out.add(value.is(Kind::dict) ? "}" : "}>");
    }
    case Kind::loop:
      return out.add(fmt::format("<LoopContext {}/{}>", value.loop->index + 1, value.loop->items.size()));
    case Kind::function:
      return out.add("<function>");
  }
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

class JsonWriter {
 public:
  JsonWriter(Heap& heap, int indent, bool sort_keys) : heap_(heap), out_(heap), indent_(indent), sort_(sort_keys) {}

  void write(const Value& value, int depth) {
    check_depth(heap_, depth);
    switch (value.kind) {
      case Kind::none:
        return out_.add("null");
      case Kind::boolean:
        return out_.add(value.boolean ? "true" : "false");
      case Kind::integer:
        return out_.add(std::to_string(value.integer));
      case Kind::floating:
        if (std::isnan(value.floating)) return out_.add("NaN");
        if (std::isinf(value.floating)) return out_.add(value.floating < 0 ? "-Infinity" : "Infinity");
        return out_.add(float_text(value.floating));
      case Kind::string:
        return out_.add(json_string(*value.string));
      case Kind::list:
      case Kind::tuple:
        return write_list(value.list->items, depth);
      case Kind::dict:
        return write_dict(value.dict->entries, depth);
      default:
        raise("{} cannot be written as JSON", kind_name(value));
    }
  }

  std::string take() { return std::move(out_.text); }

 private:
  void write_list(const std::vector<Value>& items, int depth) {
    if (items.empty()) return out_.add("[]");
    out_.add("[");
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i, depth + 1);
      write(items[i], depth + 1);
    }
    new_line(depth);
    out_.add("]");
  }

  void write_dict(std::vector<std::pair<Value, Value>> entries, int depth) {
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
      out_.add(": ");
      write(entries[i].second, depth + 1);
    }
    new_line(depth);
    out_.add("}");
  }

  void write_key(const Value& key) {
    if (key.is(Kind::string)) return out_.add(json_string(*key.string));
    if (key.is_list()) raise("a tuple cannot be a key of JSON");
    out_.add("\"");
    write(key, 0);
    out_.add("\"");
  }

  void separate(size_t i, int depth) {
    if (i > 0) out_.add(indent_ < 0 ? ", " : ",");
    new_line(depth);
  }

  void new_line(int depth) {
    if (indent_ < 0) return;
    out_.add("\n");
    out_.add(std::string(static_cast<size_t>(indent_) * static_cast<size_t>(depth), ' '));
  }

  Heap& heap_;
  Writer out_;
  int indent_;
  bool sort_;
};

Value value_at(Heap& heap, const nlohmann::ordered_json& json, int depth) {
  check_depth(heap, depth);
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value::of(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
    case nlohmann::ordered_json::value_t::number_unsigned:
      return Value::of(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value::of(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return Value::view(json.get_ptr<const std::string*>());
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(value_at(heap, item, depth + 1));
      return heap.list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      const Value object = heap.dict();
      heap.spend(json.size() * 32);
      for (const auto& item : json.items()) {
        object.dict->entries.emplace_back(Value::view(&item.key()), value_at(heap, item.value(), depth + 1));
      }
      return object;
    }
    default:
      return Value::none();
  }
}

}  // namespace

Value Value::none() {
  Value v;
  v.kind = Kind::none;
  return v;
}
Value Value::of(bool value) {
  Value v;
  v.kind = Kind::boolean;
  v.boolean = value;
  return v;
}
Value Value::of(int64_t value) {
  Value v;
  v.kind = Kind::integer;
  v.integer = value;
  return v;
}
Value Value::of(double value) {
  Value v;
  v.kind = Kind::floating;
  v.floating = value;
  return v;
}
Value Value::view(const std::string* text) {
  Value v;
  v.kind = Kind::string;
  v.string = text;
  return v;
}
Value Value::undefined(const std::string* name) {
  Value v;
  v.name = name;
  return v;
}

Heap::~Heap() = default;

Value Heap::string(std::string text) {
  spend(64 + text.size());
  return Value::view(&strings_.emplace_back(std::move(text)));
}

Value Heap::list(std::vector<Value> items, Kind kind) {
  spend(64 + items.size() * 16);
  Value v;
  v.kind = kind;
  v.list = &lists_.emplace_back(List{std::move(items)});
  return v;
}

Value Heap::dict(Kind kind) {
  spend(64);
  Value v;
  v.kind = kind;
  v.dict = &dicts_.emplace_back();
  return v;
}

Scope* Heap::scope(Scope* parent) {
  spend(128);
  Scope* scope = &scopes_.emplace_back();
  scope->parent = parent;
  return scope;
}

Loop* Heap::loop(std::vector<Value> items) {
  spend(128 + items.size() * 16);
  Loop* loop = &loops_.emplace_back();
  loop->items = std::move(items);
  return loop;
}

Value Heap::function(Function function) {
  spend(128);
  Value v;
  v.kind = Kind::function;
  v.function = &functions_.emplace_back(function);
  return v;
}

const Value* Heap::find(const Dict& dict, Value key) {
  for (const auto& [k, value] : dict.entries) {
    if (equal(*this, k, key)) return &value;
  }
  return nullptr;
}

const Value* Heap::find(const Dict& dict, std::string_view key) {
  spend(4 * dict.entries.size());
  for (const auto& [k, value] : dict.entries) {
    if (k.is(Kind::string) && *k.string == key) return &value;
  }
  return nullptr;
}

void Heap::set(Dict& dict, Value key, Value value) {
  if (key.is(Kind::list) || key.is(Kind::dict)) raise("{} cannot be a key", kind_name(key));
  if (const Value* there = find(dict, key)) {
    *const_cast<Value*>(there) = value;
    return;
  }
  spend(32);
  dict.entries.emplace_back(key, value);
}

const Value* Arguments::find(size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [n, value] : named) {
    if (n == name) return &value;
  }
  return nullptr;
}

Value Arguments::get(size_t place, std::string_view name, Value fallback) const {
  const Value* value = find(place, name);
  return value ? *value : fallback;
}

Value Arguments::need(size_t place, std::string_view name) const {
  const Value* value = find(place, name);
  if (!value) raise("the argument '{}' is missing", name);
  return *value;
}

std::string_view kind_name(const Value& value) {
  constexpr std::string_view names[] = {
      "an undefined value", "none",        "a boolean", "an integer", "a float", "a string", "a list", "a tuple",
      "a dictionary",       "a namespace", "a loop",    "a function"};
  return names[static_cast<size_t>(value.kind)];
}

bool truthy(const Value& value) {
  switch (value.kind) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return value.boolean;
    case Kind::integer:
      return value.integer != 0;
    case Kind::floating:
      return value.floating != 0;
    case Kind::string:
      return !value.string->empty();
    case Kind::list:
    case Kind::tuple:
      return !value.list->items.empty();
    case Kind::dict:
      return !value.dict->entries.empty();
    default:
      return true;
  }
}

bool equal(Heap& heap, const Value& a, const Value& b) {
  return equal_at(heap, a, b, 0);
}

bool less(Heap& heap, const Value& a, const Value& b) {
  return less_at(heap, a, b, 0);
}

std::string text_of(Heap& heap, const Value& value) {
  if (value.is(Kind::undefined)) return {};
  if (value.is(Kind::string)) {
    heap.spend(value.string->size());
    return *value.string;
  }
  return repr_of(heap, value);
}

std::string repr_of(Heap& heap, const Value& value) {
  Writer out(heap);
  write_repr(heap, value, out, 0);
  return std::move(out.text);
}

std::string json_of(Heap& heap, const Value& value, int indent, bool sort_keys) {
  JsonWriter writer(heap, indent, sort_keys);
  writer.write(value, 0);
  return writer.take();
}

Value value_of(Heap& heap, const nlohmann::ordered_json& json) {
  return value_at(heap, json, 0);
}

std::vector<Value> items_of(Heap& heap, const Value& value) {
  std::vector<Value> items;
  switch (value.kind) {
    case Kind::undefined:
      return items;
    case Kind::list:
    case Kind::tuple:
      heap.spend(value.list->items.size() * 16);
      return value.list->items;
    case Kind::dict:
      heap.spend(value.dict->entries.size() * 16);
      for (const auto& entry : value.dict->entries) items.push_back(entry.first);
      return items;
    case Kind::string:
      for (size_t at = 0; at < value.string->size();) {
        const size_t size = character_at(*value.string, at).size;
        heap.spend(16);
        items.push_back(heap.string(value.string->substr(at, size)));
        at += size;
      }
      return items;
    default:
      raise("{} cannot be looped over", kind_name(value));
  }
}

}  // namespace contexture::jinja
