#include <cmath>

#include "jinja/format.h"

namespace contexture::jinja {
namespace {

[[noreturn]] void raise_operands(std::string_view op, const Value& a, const Value& b) {
  for (const Value& value : {a, b}) {
    if (value.is(Kind::undefined)) raise_undefined(value);
  }
  raise("'{}' does not work between {} and {}", op, kind_name(a), kind_name(b));
}

[[noreturn]] void raise_overflow() {
  raise("a number grows beyond 64 bits");
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) raise_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) raise_overflow();
  }
  return result;
}

Value whole_arithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == "+"   ? __builtin_add_overflow(a, b, &result)
      : op == "-" ? __builtin_sub_overflow(a, b, &result)
                  : op == "*" && __builtin_mul_overflow(a, b, &result)) {
    raise_overflow();
  }
  if (op == "+" || op == "-" || op == "*") return Value::of(result);
  if (op == "**") {
    if (a == 0 && b < 0) raise("division by zero");
    if (b < 0) return Value::of(std::pow(static_cast<double>(a), static_cast<double>(b)));
    return Value::of(power(a, b));
  }
  if (b == 0) raise("division by zero");
  if (op == "/") return Value::of(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) return op == "//" ? whole_arithmetic("-", 0, a) : Value::of(int64_t{0});
  const int64_t quotient = a / b, rest = a % b;
  const bool rounds_down = rest != 0 && (rest < 0) != (b < 0);  // Python's rounds towards minus infinity
  return Value::of(op == "//" ? quotient - rounds_down : rounds_down ? rest + b : rest);
}

Value float_arithmetic(std::string_view op, double a, double b) {
  if (op == "+") return Value::of(a + b);
  if (op == "-") return Value::of(a - b);
  if (op == "*") return Value::of(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) raise("division by zero");
    if (a < 0 && b != std::floor(b)) raise("a power that is no real number");
    return Value::of(std::pow(a, b));
  }
  if (b == 0) raise("division by zero");
  if (op == "/") return Value::of(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return Value::of(op == "//" ? std::floor((a - rest) / b + 0.5) : rest);
}

/// A text or list, `count` times.
Value repeated(Heap& heap, const Value& value, int64_t count) {
  const size_t times = count > 0 ? static_cast<size_t>(count) : 0;
  if (value.is(Kind::string)) {
    Writer out(heap);
    if (value.text().empty()) return value;
    size_t bytes = 0;
    if (__builtin_mul_overflow(value.text().size(), times, &bytes)) raise("a value repeated {} times", times);
    heap.account().check_memory(bytes);
    for (size_t i = 0; i < times; ++i) out.add(value.string());
    return heap.string(out.text(), value.is_markup());
  }
  const std::vector<Value>& items = value.items();
  size_t bytes = 0;
  if (__builtin_mul_overflow(items.size() * sizeof(Value), times, &bytes)) raise("a value repeated {} times", times);
  heap.account().check_memory(bytes);
  std::vector<Value> all;
  for (size_t i = 0; i < times && !items.empty(); ++i) all.insert(all.end(), items.begin(), items.end());
  return heap.list(std::move(all), value.kind);
}

/// Markup escapes what is added to it.
Value joined_texts(Heap& heap, const Value& a, const Value& b) {
  const bool markup = a.is_markup() || b.is_markup();
  Writer out(heap, markup);
  out.add(a);
  out.add(b);
  return out.take();
}

}  // namespace

Value arithmetic(In in, std::string_view op, const Value& a, const Value& b) {
  Heap& heap = in.heap();
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole()) return whole_arithmetic(op, a.whole(), b.whole());
    return float_arithmetic(op, a.number(), b.number());
  }
  if (op == "+" && a.is(Kind::string) && b.is(Kind::string)) return joined_texts(heap, a, b);
  if (op == "%" && a.is(Kind::string)) return percent_format(in, a.string(), b);
  if (op == "+" && a.is_list() && a.kind == b.kind) {
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return heap.list(std::move(items), a.kind);
  }
  if (op == "*") {
    if ((a.is(Kind::string) || a.is_list()) && b.is_whole()) return repeated(heap, a, b.whole());
    if ((b.is(Kind::string) || b.is_list()) && a.is_whole()) return repeated(heap, b, a.whole());
  }
  raise_operands(op, a, b);
}

}  // namespace contexture::jinja
