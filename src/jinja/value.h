#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace contexture::jinja {

/// What stops a template, without its line; Template adds that and throws Error.
struct Fault {
  std::string message;
};

template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Fault{fmt::format(format, std::forward<Args>(args)...)};
}

struct List;
struct Dict;
struct Loop;
struct Function;

enum class Kind : uint8_t {
  undefined,
  none,
  boolean,
  integer,
  floating,
  string,
  list,
  tuple,
  dict,
  name_space,  ///< namespace(): a dict whose entries are attributes that {% set %} may change
  loop,
  function,
};

/// A value of a template, with Python's meaning. Copies are shallow and cost nothing: what does not fit in here belongs
/// to the Heap of the rendering (or, for strings, to the template or the variables), which outlives every Value.
struct Value {
  Kind kind = Kind::undefined;
  union {
    const std::string* name = nullptr;  // undefined: what was asked for; may be null
    bool boolean;
    int64_t integer;
    double floating;
    const std::string* string;
    List* list;  // tuples too
    Dict* dict;  // namespaces too
    Loop* loop;
    Function* function;
  };

  static Value none();
  static Value of(bool value);
  static Value of(int64_t value);
  static Value of(size_t value) { return of(static_cast<int64_t>(value)); }
  static Value of(double value);
  static Value view(const std::string* text);  ///< of a string that lives elsewhere, and long enough
  static Value undefined(const std::string* name);

  bool is(Kind other) const { return kind == other; }
  bool is_list() const { return kind == Kind::list || kind == Kind::tuple; }
  bool is_number() const { return kind == Kind::integer || kind == Kind::floating || kind == Kind::boolean; }
  bool is_whole() const { return kind == Kind::integer || kind == Kind::boolean; }
  int64_t whole() const { return kind == Kind::boolean ? boolean : integer; }  ///< of a boolean or an integer
  double number() const { return kind == Kind::floating ? floating : static_cast<double>(whole()); }
};

struct List {
  std::vector<Value> items;
};

/// Keys in the order in which they came. Found by looking at each: dictionaries of templates are small, and the Heap is
/// charged for every look.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
};

/// The variable `loop` of a for statement.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;  // of the present item, from 0
  bool has_changed_value = false;
  Value changed_value;  // of loop.changed()
};

/// The variables of a block. Ordered, because a template can be made whose names share one hash.
struct Scope {
  Scope* parent = nullptr;
  std::map<std::string_view, Value> variables;
};

/// Owns what a rendering makes, all of it until the end, so that cycles need no care; and bounds it: every byte made
/// and every step taken is paid for from one account.
class Heap {
 public:
  explicit Heap(size_t work) : left_(work) {}

  /// Raises a Fault where the account is empty.
  void spend(size_t units) {
    if (units > left_) raise("it takes more work than any chat template should; is it made to hang?");
    left_ -= units;
  }

  /// A search in `text` bytes for `pattern` ones may compare all of these with each of those.
  void spend_search(size_t text, size_t pattern) { spend(text + text / 64 * pattern); }

  Value string(std::string text);
  Value list(std::vector<Value> items, Kind kind = Kind::list);
  Value dict(Kind kind = Kind::dict);
  Scope* scope(Scope* parent);
  Loop* loop(std::vector<Value> items);
  Value function(Function function);

  /// Python's d[key] = value.
  void set(Dict& dict, Value key, Value value);
  /// Null where it is not there.
  const Value* find(const Dict& dict, Value key);
  const Value* find(const Dict& dict, std::string_view key);

 private:
  size_t left_;
  std::deque<std::string> strings_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Scope> scopes_;
  std::deque<Loop> loops_;
  std::deque<Function> functions_;

 public:
  // Where Function is complete.
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
};

class Interpreter;
struct Statement;

/// Arguments of a call, a filter or a test.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  /// The argument at this place or of this name; null where there is neither.
  const Value* find(size_t place, std::string_view name) const;
  Value get(size_t place, std::string_view name, Value fallback) const;
  /// Raises a Fault where it is missing.
  Value need(size_t place, std::string_view name) const;
};

using Builtin = Value (*)(Interpreter&, Value self, const Arguments&);

/// Something that can be called: a macro with the scope that it was defined in, or a built-in with its object.
struct Function {
  Builtin builtin = nullptr;
  Value self = {};
  const Statement* macro = nullptr;
  Scope* scope = nullptr;
  Value caller = {};  // {% call %}'s block, within the macro that it calls
};

/// As error messages call it: "a string".
std::string_view kind_name(const Value& value);

bool truthy(const Value& value);
/// Python's ==. Fault where the values nest too deeply (they may hold themselves).
bool equal(Heap& heap, const Value& a, const Value& b);
/// Python's <. Fault where it does not order them.
bool less(Heap& heap, const Value& a, const Value& b);
/// Python's str().
std::string text_of(Heap& heap, const Value& value);
/// Python's repr().
std::string repr_of(Heap& heap, const Value& value);
/// Python's json.dumps(ensure_ascii=False); indent < 0: on one line.
std::string json_of(Heap& heap, const Value& value, int indent, bool sort_keys);
/// Strings stay where they are: `json` must outlive the value.
Value value_of(Heap& heap, const nlohmann::ordered_json& json);
/// The items that a for statement would see, copied.
std::vector<Value> items_of(Heap& heap, const Value& value);

}  // namespace contexture::jinja
