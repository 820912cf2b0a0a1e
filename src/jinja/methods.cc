#include <algorithm>
#include <cmath>
#include <iterator>

#include "jinja/builtins.h"

/// Methods and attributes of what is no string.
namespace contexture::jinja {
namespace {

Value index_of(In in, const Value& self, Args a) {
  const auto bound = [&](size_t place, int64_t fallback) {
    const int64_t size = static_cast<int64_t>(self.items().size()), i = whole_argument(a, place, "", fallback);
    return static_cast<size_t>(std::clamp<int64_t>(i < 0 ? i + size : i, 0, size));
  };
  const size_t end = bound(2, static_cast<int64_t>(self.items().size()));
  for (size_t i = bound(1, 0); i < end; ++i) {
    if (equal(in.heap(), self.items()[i], a.need(0, "value"))) return Value::of(i);
  }
  raise("the list does not hold the value that index() asks for");
}

Value count_items(In in, const Value& self, Args a) {
  size_t count = 0;
  for (const Value& item : self.items()) count += equal(in.heap(), item, a.need(0, "value"));
  return Value::of(count);
}

Value position_in_range(In in, const Value& self, Args a) {
  Iterator numbers(in.heap(), self);
  size_t i = 0;
  for (Value number; numbers.next(number); ++i) {
    if (equal(in.heap(), number, a.need(0, "value"))) return Value::of(i);
  }
  raise("the range does not hold the value that index() asks for");
}

Value count_in_range(In in, const Value& self, Args a) {
  return Value::of(int64_t{contains(in.heap(), self, a.need(0, "value"))});
}

Value itself(In, const Value& self, Args) {
  return self;  // copies of what cannot be changed
}

Value keys(In in, const Value& self, Args) {
  return in.heap().list(items_of(in.heap(), self), Kind::view, "dict_keys");
}

Value values(In in, const Value& self, Args) {
  std::vector<Value> list;
  for (const auto& entry : self.dict().entries) list.push_back(entry.second);
  return in.heap().list(std::move(list), Kind::view, "dict_values");
}

Value items_view(In in, const Value& self, Args) {
  return items_view_of(in.heap(), self);
}

Value get(In in, const Value& self, Args a) {
  const Value& key = a.need(0, "key");
  if (key.is(Kind::list) || key.is(Kind::dict)) raise("{} cannot be a key", kind_name(key));
  const Value* found = in.heap().find(self.dict(), key);
  return found ? *found : a.get(1, "default", Value::none());
}

Value fromkeys(In in, const Value&, Args a) {
  std::vector<std::pair<Value, Value>> entries;
  for (const Value& key : items_of(in.heap(), a.need(0, "iterable"))) {
    in.heap().set(entries, key, a.get(1, "value", Value::none()));
  }
  return in.heap().dict(std::move(entries));
}

Loop& present_loop(const Value& self) {
  if (self.loop->is_over) raise("a loop was used after its end");
  return *self.loop;
}

Value loop_cycle(In, const Value& self, Args a) {
  if (a.positional.empty()) raise("cycle() has nothing to choose from");
  return a.positional[present_loop(self).index % a.positional.size()];
}

Value loop_changed(In in, const Value& self, Args a) {
  const Value now = in.heap().tuple(a.positional);
  Loop& loop = present_loop(self);
  if (loop.has_changed_value && equal(in.heap(), loop.changed_value, now)) return Value::of(false);
  loop.has_changed_value = true;
  loop.changed_value = now;
  return Value::of(true);
}

Value cycler_next(In, const Value& self, Args) {
  Cycler& cycler = *self.cycler;
  const Value now = cycler.items[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.items.size();
  return now;
}

Value cycler_reset(In, const Value& self, Args) {
  self.cycler->at = 0;
  return Value::none();
}

Value float_is_whole(In, const Value& self, Args) {
  return Value::of(self.is_whole() || (std::isfinite(self.floating) && std::floor(self.floating) == self.floating));
}

Value loop_attribute(const Value& object, std::string_view name) {
  Loop& loop = present_loop(object);
  if (name == "index") return Value::of(loop.index + 1);
  if (name == "index0") return Value::of(loop.index);
  if (name == "revindex") return Value::of(loop.size() - loop.index);
  if (name == "revindex0") return Value::of(loop.size() - loop.index - 1);
  if (name == "first") return Value::of(loop.index == 0);
  if (name == "last") return Value::of(!loop.fetch(loop.index + 1));
  if (name == "length") return Value::of(loop.size());
  if (name == "depth") return Value::of(loop.depth + 1);
  if (name == "depth0") return Value::of(loop.depth);
  if (name == "previtem" && loop.index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && loop.fetch(loop.index + 1)) return loop.items[loop.index + 1];
  return {};
}

Value macro_attribute(In in, const Statement& macro, std::string_view name) {
  if (name == "name") return macro.text.empty() ? Value::none() : in.heap().string(macro.text);
  if (name == "catch_varargs") return Value::of(macro.takes_varargs);
  if (name == "catch_kwargs") return Value::of(macro.takes_kwargs);
  if (name == "caller") return Value::of(macro.takes_caller);
  if (name != "arguments") return {};
  std::vector<Value> names;
  for (const Statement::Parameter& parameter : macro.parameters) names.push_back(in.heap().string(parameter.name));
  return in.heap().tuple(std::move(names));
}

/// What Python's objects have and these have not: an undefined value in its place would be a wrong answer.
void refuse_unknown(const Value& object, std::string_view name) {
  constexpr std::string_view kOfNumbers[] = {"real",       "imag",       "numerator", "denominator",
                                             "conjugate",  "bit_length", "bit_count", "to_bytes",
                                             "from_bytes", "hex",        "fromhex",   "as_integer_ratio"};
  constexpr std::string_view kOfStrings[] = {"encode", "unescape"};
  constexpr std::string_view kOfViews[] = {"mapping", "isdisjoint"};
  const auto refuse_any = [&](const auto& names) {
    if (std::find(std::begin(names), std::end(names), name) == std::end(names)) return;
    raise("'{}' of {} is not known here", name, kind_name(object));
  };
  if (object.is_number()) refuse_any(kOfNumbers);
  if (object.is(Kind::string)) refuse_any(kOfStrings);
  if (object.is(Kind::view)) refuse_any(kOfViews);
}

}  // namespace

Value items_view_of(Heap& heap, const Value& dict) {
  std::vector<Value> list;
  for (const auto& [key, value] : dict.dict().entries) list.push_back(heap.tuple({key, value}));
  return heap.list(std::move(list), Kind::view, "dict_items");
}

const NamedBuiltin* find_method(const Value& object, std::string_view name) {
  static const Table none = {};
  static const Table tuples = {{"index", {index_of, "/ value start? stop?"}}, {"count", {count_items, "/ value"}}};
  static const Table lists = {
      {"index", {index_of, "/ value start? stop?"}}, {"count", {count_items, "/ value"}}, {"copy", {itself, "/"}}};
  static const Table ranges = {{"index", {position_in_range, "/ value"}}, {"count", {count_in_range, "/ value"}}};
  static const Table dicts = {
      {"keys", {keys, "/"}},        {"values", {values, "/"}}, {"get", {get, "/ key default?"}},
      {"items", {items_view, "/"}}, {"copy", {itself, "/"}},   {"fromkeys", {fromkeys, "/ iterable value?"}}};
  static const Table loops = {{"cycle", {loop_cycle, "*"}}, {"changed", {loop_changed, "*"}}};
  static const Table cyclers = {{"next", {cycler_next, "/"}}, {"reset", {cycler_reset, "/"}}};
  static const Table numbers = {{"is_integer", {float_is_whole, "/"}}};
  if (object.is_markup() && name == "striptags") return find_filter(name);
  switch (object.kind) {
    case Kind::string:
      return find_in(string_methods(), name);
    case Kind::list:
      return find_in(lists, name);
    case Kind::tuple:
      return find_in(tuples, name);
    case Kind::range:
      return find_in(ranges, name);
    case Kind::dict:
      return find_in(dicts, name);
    case Kind::loop:
      return find_in(loops, name);
    case Kind::cycler:
      return find_in(cyclers, name);
    case Kind::floating:
    case Kind::integer:
      return find_in(numbers, name);
    default:
      return find_in(none, name);
  }
}

Value special_attribute(In in, const Value& object, std::string_view name) {
  refuse_unknown(object, name);
  if (object.is(Kind::loop)) return loop_attribute(object, name);
  if (object.is(Kind::function) && object.function().macro) return macro_attribute(in, *object.function().macro, name);
  if (object.is(Kind::cycler) && name == "current") return object.cycler->items[object.cycler->at];
  if (object.is(Kind::tuple) && object.list().name == "group") {
    if (name == "grouper") return object.items()[0];
    if (name == "list") return object.items()[1];
  }
  if (object.is(Kind::range)) {
    if (name == "start") return Value::of(object.range().start);
    if (name == "stop") return Value::of(object.range().stop);
    if (name == "step") return Value::of(object.range().step);
  }
  return {};
}

}  // namespace contexture::jinja
