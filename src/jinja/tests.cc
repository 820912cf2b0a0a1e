#include <map>

#include "jinja/builtins.h"
#include "jinja/strings.h"
#include "jinja/text_parts.h"

namespace contexture::jinja {
namespace {

Value rest_of(In in, const Value& value, const Value& by) {
  return arithmetic(in, "%", value, by);
}
bool is_rest(In in, const Value& value, int64_t by, int64_t rest) {
  if (!value.is_number()) raise("a number is needed and not {}", kind_name(value));
  return equal(in.heap(), rest_of(in, value, Value::of(by)), Value::of(rest));
}

Value divisibleby(In in, const Value& value, Args a) {
  const Value& by = a.need(0, "num");
  if (!value.is_number() || !by.is_number()) raise("numbers are needed");
  return Value::of(equal(in.heap(), rest_of(in, value, by), Value::of(int64_t{0})));
}

Value is_equal(In in, const Value& value, Args a) {
  return Value::of(equal(in.heap(), value, a.need(0, "other")));
}
Value is_not_equal(In in, const Value& value, Args a) {
  return Value::of(!equal(in.heap(), value, a.need(0, "other")));
}
Value is_less(In in, const Value& value, Args a) {
  return Value::of(less(in.heap(), value, a.need(0, "other")));
}
Value is_greater(In in, const Value& value, Args a) {
  return Value::of(less(in.heap(), a.need(0, "other"), value));
}
Value is_less_or_equal(In in, const Value& value, Args a) {
  return Value::of(truthy(is_less(in, value, a)) || truthy(is_equal(in, value, a)));
}
Value is_greater_or_equal(In in, const Value& value, Args a) {
  return Value::of(truthy(is_greater(in, value, a)) || truthy(is_equal(in, value, a)));
}

/// Python's `is`: of what is made anew each time, only where it is the same object.
Value is_same(In in, const Value& value, Args a) {
  const Value& other = a.need(0, "other");
  if (value.kind != other.kind) return Value::of(false);
  if (value.is(Kind::string)) return Value::of(value.object == other.object || equal(in.heap(), value, other));
  if (value.object || other.object) return Value::of(value.object == other.object);
  return Value::of(equal(in.heap(), value, other));
}

bool is_sequence(const Value& value) {
  return value.is(Kind::undefined) || value.is(Kind::string) || value.is_list() || value.is(Kind::dict) ||
         value.is(Kind::range);
}
bool is_iterable(const Value& value) {
  return is_sequence(value) || value.is(Kind::view) || value.is(Kind::generator) || value.is(Kind::loop);
}
bool is_callable(const Value& value) {
  return value.is(Kind::function) || value.is(Kind::joiner) || value.is(Kind::undefined) || value.is(Kind::loop);
}

Value is_in_case(In in, const Value& value, bool (*is)(char32_t)) {
  const Value text = string_of(in.heap(), value);
  return Value::of(has_case(in.heap(), text.text(), is));
}

/// Filters and tests are known by their names, and a value that cannot be a key is an error.
bool names_one(const Value& name, const NamedBuiltin* (*find)(std::string_view)) {
  if (name.is(Kind::list) || name.is(Kind::dict)) raise("{} cannot be a key", kind_name(name));
  return name.is(Kind::string) && find(name.text()) != nullptr;
}

template <bool (*Is)(const Value&)>
Value whether(In, const Value& value, Args) {
  return Value::of(Is(value));
}
template <Kind Of>
Value of_kind(In, const Value& value, Args) {
  return Value::of(value.is(Of));
}

}  // namespace

const NamedBuiltin* find_test(std::string_view name) {
  using V = const Value&;
  static const Table table = {
      {"defined", {[](In, V v, Args) { return Value::of(!v.is(Kind::undefined)); }, ""}},
      {"undefined", {of_kind<Kind::undefined>, ""}},
      {"none", {of_kind<Kind::none>, ""}},
      {"boolean", {of_kind<Kind::boolean>, ""}},
      {"true", {[](In, V v, Args) { return Value::of(v.is(Kind::boolean) && v.boolean); }, ""}},
      {"false", {[](In, V v, Args) { return Value::of(v.is(Kind::boolean) && !v.boolean); }, ""}},
      {"string", {of_kind<Kind::string>, ""}},
      {"number", {[](In, V v, Args) { return Value::of(v.is_number()); }, ""}},
      {"integer", {of_kind<Kind::integer>, ""}},
      {"float", {of_kind<Kind::floating>, ""}},
      {"mapping", {of_kind<Kind::dict>, ""}},
      {"sequence", {whether<is_sequence>, ""}},
      {"iterable", {whether<is_iterable>, ""}},
      {"callable", {whether<is_callable>, ""}},
      {"escaped", {[](In, V v, Args) { return Value::of(v.is_markup()); }, ""}},
      {"odd", {[](In in, V v, Args) { return Value::of(is_rest(in, v, 2, 1)); }, ""}},
      {"even", {[](In in, V v, Args) { return Value::of(is_rest(in, v, 2, 0)); }, ""}},
      {"divisibleby", {divisibleby, "num"}},
      {"lower", {[](In in, V v, Args) { return is_in_case(in, v, is_lower); }, ""}},
      {"upper", {[](In in, V v, Args) { return is_in_case(in, v, is_upper); }, ""}},
      {"in", {[](In in, V v, Args a) { return Value::of(contains(in.heap(), a.need(0, "seq"), v)); }, "seq"}},
      {"sameas", {is_same, "other"}},
      {"filter", {[](In, V v, Args) { return Value::of(names_one(v, find_filter)); }, ""}},
      {"test", {[](In, V v, Args) { return Value::of(names_one(v, find_test)); }, ""}},
      {"eq", {is_equal, "/ other"}},
      {"equalto", {is_equal, "/ other"}},
      {"==", {is_equal, "/ other"}},
      {"ne", {is_not_equal, "/ other"}},
      {"!=", {is_not_equal, "/ other"}},
      {"lt", {is_less, "/ other"}},
      {"lessthan", {is_less, "/ other"}},
      {"<", {is_less, "/ other"}},
      {"gt", {is_greater, "/ other"}},
      {"greaterthan", {is_greater, "/ other"}},
      {">", {is_greater, "/ other"}},
      {"le", {is_less_or_equal, "/ other"}},
      {"<=", {is_less_or_equal, "/ other"}},
      {"ge", {is_greater_or_equal, "/ other"}},
      {">=", {is_greater_or_equal, "/ other"}},
  };
  return find_in(table, name);
}

}  // namespace contexture::jinja
