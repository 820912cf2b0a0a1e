#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/account.h"
#include "jinja/marked_text.h"

namespace contexture::jinja {

struct List;
struct Dict;
struct Range;
struct Loop;
struct Function;
struct Generator;
struct Cycler;
struct String;

enum class Kind : uint8_t {
  undefined,
  none,
  boolean,
  integer,
  floating,
  string,
  list,
  tuple,
  view,  ///< of a dictionary: its keys(), values() or items()
  dict,
  range,
  name_space,  ///< namespace(): a dict whose entries are attributes that {% set %} may change
  loop,
  function,
  generator,  ///< what map, select and others give: items that are made when they are asked for, once
  cycler,
  joiner,
};

/// A value of a template, with Python's meaning. Copies are shallow. What templates cannot change lives as long as some
/// value refers to it, and holds no cycles; the rest belongs to the Heap of the rendering.
struct Value {
  Kind kind = Kind::undefined;
  union {
    int64_t integer = 0;
    bool boolean;
    double floating;
    Dict* space;  // of a namespace
    Loop* loop;
    Generator* generator;
    Cycler* cycler;  // joiners too
  };
  std::shared_ptr<const void> object;  // of the other kinds; undefined: the String that was asked for, perhaps

  static Value none();
  static Value of(bool value);
  static Value of(int64_t value);
  static Value of(size_t value) { return of(static_cast<int64_t>(value)); }
  static Value of(double value);
  /// A string of the template itself, which no Heap pays for.
  static Value literal(std::string text);
  static Value undefined(const Value& name);

  bool is(Kind other) const { return kind == other; }
  bool is_list() const { return kind == Kind::list || kind == Kind::tuple; }
  bool is_number() const { return kind == Kind::integer || kind == Kind::floating || kind == Kind::boolean; }
  bool is_whole() const { return kind == Kind::integer || kind == Kind::boolean; }
  bool is_markup() const;
  int64_t whole() const { return kind == Kind::boolean ? boolean : integer; }  ///< of a boolean or an integer
  double number() const { return kind == Kind::floating ? floating : static_cast<double>(whole()); }

  const String& string() const { return *static_cast<const String*>(object.get()); }
  const std::string& text() const;                                              ///< of a string
  const List& list() const { return *static_cast<const List*>(object.get()); }  ///< of a list, tuple or view
  const std::vector<Value>& items() const;                                      ///< of these
  const Dict& dict() const;                                                     ///< of a dict or namespace
  const Range& range() const { return *static_cast<const Range*>(object.get()); }
  const Function& function() const { return *static_cast<const Function*>(object.get()); }
};

struct String : MarkedText {
  String(MarkedText text, bool markup, Charge paid)
      : MarkedText(std::move(text)), is_markup(markup), charge(std::move(paid)) {}
  bool is_markup;  ///< |safe, |e: what is added to it is escaped
  Charge charge;
};

struct List {
  std::vector<Value> items;
  std::string_view name = {};  ///< of a view: "dict_keys"; of what groupby gives: "group"
  int depth = 0;
  Charge charge = {};
};

/// Keys in the order in which they came. Found by looking at each: dictionaries of templates are small, and the Heap is
/// charged for every look.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 0;
  Charge charge = {};
};

struct Range {
  int64_t start, stop, step;
  size_t size() const;
  int64_t at(size_t i) const { return start + static_cast<int64_t>(i) * step; }
};

class Heap;

/// Walks over what a for statement would see. Values are made as they are asked for.
class Iterator {
 public:
  Iterator() = default;
  /// Raises a Fault where it cannot be looped over.
  Iterator(Heap& heap, Value source);
  /// False at the end.
  bool next(Value& value);

 private:
  Heap* heap_ = nullptr;
  Value source_;
  size_t at_ = 0;
};

struct Generator {
  std::function<bool(Value&)> next;  ///< empty: at its end
};

struct Cycler {
  std::vector<Value> items;
  size_t at = 0;
};

/// The variables of a block. Ordered, because a template can be made whose names share one hash.
struct Scope {
  Scope* parent = nullptr;
  bool is_kept = false;  // a macro was defined here: it must stay
  std::map<std::string_view, Value> variables = {};
  Charge charge = {};
};

/// The variable `loop` of a for statement: items are taken from the source when they are needed.
struct Loop {
  std::function<bool(Value&)> source;  // empty: at its end
  std::vector<Value> items;            // so far
  size_t index = 0;                    // of the present item, from 0
  size_t depth = 0;
  bool is_over = false;
  bool has_changed_value = false;
  Value changed_value;                              // of loop.changed()
  std::function<Value(const Value&)> recurse = {};  // runs the body over other items; empty: not recursive

  bool fetch(size_t i);  ///< whether there is an item `i`
  size_t size();
};

/// Owns what a rendering makes and templates can change, all of it until the end, so that cycles need no care.
class Heap {
 public:
  Heap(const Bounds& bounds, size_t input) : account_(bounds, input) {}
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  Account& account() { return account_; }
  void spend(size_t steps) { account_.spend(steps); }
  /// A search in `text` bytes for `pattern` ones may compare all of these with each of those.
  void spend_search(size_t text, size_t pattern) { spend(text + text / 64 * pattern); }

  Value string(std::string_view text, bool is_content = false);
  Value string(MarkedText text, bool markup = false);
  /// `from` to `to` of a string; Markup stays Markup.
  Value part(const String& text, size_t from, size_t to = std::string::npos);
  Value list(std::vector<Value> items, Kind kind = Kind::list, std::string_view name = {});
  Value tuple(std::vector<Value> items) { return list(std::move(items), Kind::tuple); }
  Value dict(std::vector<std::pair<Value, Value>> entries);
  Value range(Range range);
  Value name_space();
  Value function(Function function);
  Value generator(std::function<bool(Value&)> next);
  Value cycler(std::vector<Value> items, Kind kind);
  Scope* scope(Scope* parent);
  void release(Scope* scope);
  Loop* loop(std::function<bool(Value&)> source);

  /// Python's d[key] = value, while a dictionary is made and of namespaces.
  void set(std::vector<std::pair<Value, Value>>& entries, const Value& key, const Value& value);
  /// Null where it is not there.
  const Value* find(const Dict& dict, const Value& key);
  const Value* find(const Dict& dict, std::string_view key);

 private:
  Account account_;  // first: all else pays back into it
  std::deque<Dict> spaces_;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::deque<Loop> loops_;
  std::deque<Generator> generators_;
  std::deque<Cycler> cyclers_;
};

/// Makes a string, and pays for it as it grows.
class Writer {
 public:
  explicit Writer(Heap& heap, bool markup = false) : heap_(heap), charge_(heap.account()), markup_(markup) {}
  void add(std::string_view bytes, bool is_content = false);
  void add(const MarkedText& text, size_t from = 0, size_t to = std::string::npos);
  /// str() of a value; of Markup that is made, what is no Markup is escaped.
  void add(const Value& value);
  void fill(std::string_view bytes, size_t times);
  size_t size() const { return text_.size(); }
  const MarkedText& text() const { return text_; }
  Value take();

 private:
  Heap& heap_;
  MarkedText text_;
  Charge charge_;
  bool markup_;
};

class Interpreter;
struct Statement;

/// Arguments of a call, a filter or a test.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
  Value names = {};  ///< what holds the texts of such names as came from a dictionary

  /// The argument at this place or of this name; null where there is neither.
  const Value* find(size_t place, std::string_view name) const;
  Value get(size_t place, std::string_view name, const Value& fallback) const;
  /// Raises a Fault where it is missing.
  const Value& need(size_t place, std::string_view name) const;
};

using Builtin = Value (*)(Interpreter&, const Value& self, const Arguments&);

/// A built-in's code, and what it takes: names in their order, "?" after one that may be missing; "*": any more without
/// a name; "**": any with one; "/" in front: none by its name.
struct BuiltinCode {
  Builtin run;
  std::string_view parameters;
};
using Table = std::map<std::string_view, BuiltinCode>;
using NamedBuiltin = Table::value_type;

/// Something that can be called: a macro with the scope that it was defined in, or a built-in with its object.
struct Function {
  const NamedBuiltin* builtin = nullptr;
  Value self = {};
  const Statement* macro = nullptr;
  Scope* scope = nullptr;
  Value caller = {};  // {% call %}'s block, within the macro that it calls
  int depth = 0;
  Charge charge = {};
};

/// As error messages call it: "a string".
std::string_view kind_name(const Value& value);
[[noreturn]] void raise_undefined(const Value& value);

bool truthy(const Value& value);
/// Python's ==. Fault where the values nest too deeply.
bool equal(Heap& heap, const Value& a, const Value& b);
/// Python's <. Fault where it does not order them.
bool less(Heap& heap, const Value& a, const Value& b);
/// Python's `value in container`.
bool contains(Heap& heap, const Value& container, const Value& value);
/// Python's str(): Markup becomes a string like any other.
Value string_of(Heap& heap, const Value& value);
/// The same, but Markup stays what it is.
Value soft_string(Heap& heap, const Value& value);
/// Python's repr(); `ascii`: its ascii().
Value repr_of(Heap& heap, const Value& value, bool ascii = false);
/// markupsafe.escape().
Value escaped(Heap& heap, const Value& value);

/// As Python's json.dumps has them.
struct JsonStyle {
  bool ensure_ascii = false;
  Value indent = Value::none();  ///< none, a whole number or a string
  Value separators = Value::none();
  bool sort_keys = false;
};
Value json_of(Heap& heap, const Value& value, const JsonStyle& style);

/// What of a rendering's variables is content.
struct Origin {
  bool is_content = false;
  std::span<const std::string_view> own_words = {};  ///< texts that are the template's own wherever they come from
};
Value value_of(Heap& heap, const nlohmann::ordered_json& json, const Origin& origin);
/// The items that a for statement would see; a generator is used up.
std::vector<Value> items_of(Heap& heap, const Value& value);

}  // namespace contexture::jinja
