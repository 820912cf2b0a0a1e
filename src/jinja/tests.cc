#include <map>

#include "jinja/builtins.h"
#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

using Args = const Arguments&;

int64_t whole(const Value& value) {
  if (!value.is_whole()) raise("a whole number is needed and not {}", kind_name(value));
  return value.whole();
}

bool divisible(const Value& value, int64_t by) {
  if (by == 0) raise("division by zero");
  return by == -1 || whole(value) % by == 0;
}

bool is_equal(Interpreter& in, const Value& value, Args a) {
  return equal(in.heap(), value, a.need(0, "other"));
}
bool is_less(Interpreter& in, const Value& value, Args a) {
  return less(in.heap(), value, a.need(0, "other"));
}
bool is_greater(Interpreter& in, const Value& value, Args a) {
  return less(in.heap(), a.need(0, "other"), value);
}

bool is_callable(const Value& value) {
  return value.is(Kind::function);
}
bool is_iterable(const Value& value) {
  return value.is(Kind::undefined) || value.is(Kind::string) || value.is_list() || value.is(Kind::dict);
}

/// Python's islower and isupper: at least one letter, and none of the other case.
bool has_case(Interpreter& in, const Value& value, char low, char high) {
  bool has = false;
  for (const char c : text_of(in.heap(), value)) {
    if (c >= low && c <= high) has = true;
    const char folded = static_cast<char>(c ^ 0x20);
    if (folded >= low && folded <= high) return false;
  }
  return has;
}

}  // namespace

Test find_test(std::string_view name) {
  using In = Interpreter&;
  using V = const Value&;
  static const std::map<std::string_view, Test> table = {
      {"defined", [](In, V v, Args) { return !v.is(Kind::undefined); }},
      {"undefined", [](In, V v, Args) { return v.is(Kind::undefined); }},
      {"none", [](In, V v, Args) { return v.is(Kind::none); }},
      {"boolean", [](In, V v, Args) { return v.is(Kind::boolean); }},
      {"true", [](In, V v, Args) { return v.is(Kind::boolean) && v.boolean; }},
      {"false", [](In, V v, Args) { return v.is(Kind::boolean) && !v.boolean; }},
      {"string", [](In, V v, Args) { return v.is(Kind::string); }},
      {"number", [](In, V v, Args) { return v.is_number(); }},
      {"integer", [](In, V v, Args) { return v.is(Kind::integer); }},
      {"float", [](In, V v, Args) { return v.is(Kind::floating); }},
      {"mapping", [](In, V v, Args) { return v.is(Kind::dict); }},
      {"sequence", [](In, V v, Args) { return is_iterable(v); }},
      {"iterable", [](In, V v, Args) { return is_iterable(v); }},
      {"callable", [](In, V v, Args) { return is_callable(v); }},
      {"odd", [](In, V v, Args) { return !divisible(v, 2); }},
      {"even", [](In, V v, Args) { return divisible(v, 2); }},
      {"divisibleby", [](In, V v, Args a) { return divisible(v, whole(a.need(0, "num"))); }},
      {"lower", [](In in, V v, Args) { return has_case(in, v, 'a', 'z'); }},
      {"upper", [](In in, V v, Args) { return has_case(in, v, 'A', 'Z'); }},
      {"in", [](In in, V v, Args a) { return contains(in.heap(), a.need(0, "seq"), v); }},
      {"sameas", [](In in, V v, Args a) { return v.kind == a.need(0, "other").kind && is_equal(in, v, a); }},
      {"filter", [](In in, V v, Args) { return find_filter(text_of(in.heap(), v)) != nullptr; }},
      {"test", [](In in, V v, Args) { return find_test(text_of(in.heap(), v)) != nullptr; }},
      {"eq", is_equal},
      {"equalto", is_equal},
      {"==", is_equal},
      {"ne", [](In in, V v, Args a) { return !is_equal(in, v, a); }},
      {"!=", [](In in, V v, Args a) { return !is_equal(in, v, a); }},
      {"lt", is_less},
      {"lessthan", is_less},
      {"<", is_less},
      {"gt", is_greater},
      {"greaterthan", is_greater},
      {">", is_greater},
      {"le", [](In in, V v, Args a) { return is_less(in, v, a) || is_equal(in, v, a); }},
      {"<=", [](In in, V v, Args a) { return is_less(in, v, a) || is_equal(in, v, a); }},
      {"ge", [](In in, V v, Args a) { return is_greater(in, v, a) || is_equal(in, v, a); }},
      {">=", [](In in, V v, Args a) { return is_greater(in, v, a) || is_equal(in, v, a); }},
  };
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace contexture::jinja
