#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/strings.h"

/// Expressions.
namespace contexture::jinja {
namespace {

constexpr size_t kMostExpandedArguments = 1000;

/// Python's slice.indices(): where a slice begins, ends, and its step.
struct SliceOf {
  int64_t start, stop, step;

  SliceOf(const Value (&bounds)[3], size_t length) {
    const int64_t size = static_cast<int64_t>(length);
    step = bounds[2].is(Kind::none) ? 1 : whole(bounds[2]);
    if (step == 0) raise("a slice's step is zero");
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
    const auto clamp = [&](int64_t i) { return std::clamp(i < 0 ? i + size : i, low, high); };
    start = bounds[0].is(Kind::none) ? (step > 0 ? low : high) : clamp(whole(bounds[0]));
    stop = bounds[1].is(Kind::none) ? (step > 0 ? high : low) : clamp(whole(bounds[1]));
  }

  /// Calls back with every place.
  template <typename Take>
  void each(Take take) const {
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
      take(static_cast<size_t>(i));
      if (__builtin_add_overflow(i, step, &i)) break;
    }
  }

 private:
  static int64_t whole(const Value& bound) {
    if (!bound.is_whole()) raise("a slice needs whole numbers and not {}", kind_name(bound));
    return bound.whole();
  }
};

Value slice_of_text(Heap& heap, const String& text, const Value (&bounds)[3]) {
  heap.spend(2 * text.size());
  const SliceOf slice(bounds, count_characters(text.bytes()));
  if (slice.step == 1) {
    const size_t from = place_of_character(text.bytes(), static_cast<size_t>(slice.start));
    const size_t count = static_cast<size_t>(std::max(slice.stop, slice.start) - slice.start);
    return heap.part(text, from, from + place_of_character(std::string_view(text.bytes()).substr(from), count));
  }
  std::vector<size_t> places;
  for (size_t at = 0; at < text.size(); at += character_at(text.bytes(), at).size) places.push_back(at);
  heap.spend(places.size() * sizeof(size_t));
  Writer out(heap);
  slice.each([&](size_t i) { out.add(text, places[i], places[i] + character_at(text.bytes(), places[i]).size); });
  return heap.string(out.text(), text.is_markup);
}

Value slice_of_range(Heap& heap, const Range& range, const Value (&bounds)[3]) {
  const SliceOf slice(bounds, range.size());
  int64_t start = 0, stop = 0, step = 0;
  if (__builtin_mul_overflow(slice.start, range.step, &start) || __builtin_add_overflow(start, range.start, &start) ||
      __builtin_mul_overflow(slice.stop, range.step, &stop) || __builtin_add_overflow(stop, range.start, &stop) ||
      __builtin_mul_overflow(slice.step, range.step, &step)) {
    raise("a number grows beyond 64 bits");
  }
  return heap.range({start, stop, step});
}

}  // namespace

Value Interpreter::evaluate(const Expression& e, Scope* scope) {
  const Level level(*this);
  line_ = e.line;
  switch (e.kind) {
    case ExpressionKind::literal:
      return e.value;
    case ExpressionKind::name:
      return evaluate_name(e, scope);
    case ExpressionKind::list:
      return heap_.list(evaluate_all(e, scope));
    case ExpressionKind::tuple:
      return heap_.tuple(evaluate_all(e, scope));
    case ExpressionKind::dict:
      return evaluate_dict(e, scope);
    case ExpressionKind::attribute:
      return attribute(evaluate(*e.children[0], scope), e.value);
    case ExpressionKind::item: {
      const Value object = evaluate(*e.children[0], scope);
      return item(object, evaluate(*e.children[1], scope));
    }
    case ExpressionKind::slice:
      return evaluate_slice(e, scope);
    case ExpressionKind::call:
      return evaluate_call(e, scope);
    case ExpressionKind::filter:
      return evaluate_filter(e, evaluate(*e.children[0], scope), scope);
    case ExpressionKind::test: {
      const Value input = evaluate(*e.children[0], scope);
      return Value::of(test(e.text, input, evaluate_arguments(e, scope)));
    }
    case ExpressionKind::not_:
      return Value::of(!truthy(evaluate(*e.children[0], scope)));
    case ExpressionKind::and_:
    case ExpressionKind::or_: {
      Value value;
      for (const Expression* child : e.children) {
        value = evaluate(*child, scope);
        if (truthy(value) == (e.kind == ExpressionKind::or_)) break;
      }
      return value;
    }
    case ExpressionKind::compare:
      return evaluate_compare(e, scope);
    case ExpressionKind::concatenate:
      return evaluate_concatenation(e, scope);
    case ExpressionKind::arithmetic: {
      const Value left = evaluate(*e.children[0], scope);
      const Value right = evaluate(*e.children[1], scope);
      return arithmetic(*this, e.text, left, right);
    }
    case ExpressionKind::negate:
    case ExpressionKind::positive: {
      const Value value = evaluate(*e.children[0], scope);
      if (value.is(Kind::floating))
        return Value::of(e.kind == ExpressionKind::negate ? -value.floating : value.floating);
      return arithmetic(*this, e.kind == ExpressionKind::negate ? "-" : "+", Value::of(int64_t{0}), value);
    }
    case ExpressionKind::condition:
      if (truthy(evaluate(*e.children[1], scope))) return evaluate(*e.children[0], scope);
      return e.children[2] ? evaluate(*e.children[2], scope) : Value();
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& e, Scope* scope) {
  const std::string& name = e.value.text();
  for (Scope* at = scope; at; at = at->parent) {
    const auto found = at->variables.find(name);
    if (found != at->variables.end()) return found->second;
  }
  if (const NamedBuiltin* builtin = find_global(name)) return method(*builtin, {});
  return Value::undefined(e.value);
}

std::vector<Value> Interpreter::evaluate_all(const Expression& e, Scope* scope) {
  std::vector<Value> values;
  values.reserve(e.children.size());
  for (const Expression* child : e.children) values.push_back(evaluate(*child, scope));
  return values;
}

/// Of a call, filter or test: its first child is the object.
Arguments Interpreter::evaluate_arguments(const Expression& e, Scope* scope) {
  Arguments arguments;
  for (size_t i = 1; i < e.children.size(); ++i) arguments.positional.push_back(evaluate(*e.children[i], scope));
  if (e.more) {
    Iterator iterator(heap_, evaluate(*e.more, scope));
    for (Value value; iterator.next(value);) {
      arguments.positional.push_back(value);
      if (arguments.positional.size() > kMostExpandedArguments) raise("more than {} arguments", kMostExpandedArguments);
    }
  }
  for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value, scope));
  if (e.more_named) {
    const Value more = evaluate(*e.more_named, scope);
    if (!more.is(Kind::dict)) raise("** needs a dictionary and not {}", kind_name(more));
    if (more.dict().entries.size() > kMostExpandedArguments) raise("more than {} arguments", kMostExpandedArguments);
    for (const auto& [key, value] : more.dict().entries) {
      if (!key.is(Kind::string)) raise("the name of an argument must be a string and not {}", kind_name(key));
      const auto same = [&, &k = key](const auto& given) { return given.first == k.text(); };
      if (std::any_of(arguments.named.begin(), arguments.named.end(), same)) {
        raise("two values for the argument '{}'", key.text());
      }
      arguments.named.emplace_back(key.text(), value);
    }
    arguments.names = more;
  }
  line_ = e.line;
  return arguments;
}

Value Interpreter::evaluate_dict(const Expression& e, Scope* scope) {
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i < e.children.size(); i += 2) {
    const Value key = evaluate(*e.children[i], scope);
    heap_.set(entries, key, evaluate(*e.children[i + 1], scope));
  }
  return heap_.dict(std::move(entries));
}

Value Interpreter::evaluate_call(const Expression& e, Scope* scope) {
  const Value callee = evaluate(*e.children[0], scope);
  return call(callee, evaluate_arguments(e, scope));
}

Value Interpreter::evaluate_filter(const Expression& e, const Value& input, Scope* scope) {
  return filter(e.text, input, evaluate_arguments(e, scope));
}

Value Interpreter::evaluate_compare(const Expression& e, Scope* scope) {
  Value left = evaluate(*e.children[0], scope);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    const Value right = evaluate(*e.children[i + 1], scope);
    line_ = e.line;
    if (!compare(e.operators[i], left, right)) return Value::of(false);
    left = right;
  }
  return Value::of(true);
}

bool Interpreter::compare(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(heap_, a, b);
  if (op == "!=") return !equal(heap_, a, b);
  if (op == "in") return contains(heap_, b, a);
  if (op == "not in") return !contains(heap_, b, a);
  if (op == "<") return less(heap_, a, b);
  if (op == ">") return less(heap_, b, a);
  if (op == "<=") return less(heap_, a, b) || equal(heap_, a, b);
  return less(heap_, b, a) || equal(heap_, a, b);
}

Value Interpreter::evaluate_concatenation(const Expression& e, Scope* scope) {
  Writer text(heap_);
  for (const Expression* child : e.children) text.add(evaluate(*child, scope));
  return text.take();
}

Value Interpreter::evaluate_slice(const Expression& e, Scope* scope) {
  const Value object = evaluate(*e.children[0], scope);
  Value bounds[3] = {Value::none(), Value::none(), Value::none()};
  for (size_t i = 0; i < 3; ++i) {
    if (e.children[i + 1]) bounds[i] = evaluate(*e.children[i + 1], scope);
  }
  line_ = e.line;
  if (object.is(Kind::undefined)) raise_undefined(object);
  if (object.is(Kind::string)) return slice_of_text(heap_, object.string(), bounds);
  if (object.is(Kind::range)) return slice_of_range(heap_, object.range(), bounds);
  if (!object.is_list()) raise("{} cannot be sliced", kind_name(object));
  std::vector<Value> kept;
  SliceOf(bounds, object.items().size()).each([&](size_t i) {
    heap_.spend(16);
    kept.push_back(object.items()[i]);
  });
  return heap_.list(std::move(kept), object.kind);
}

// What built-ins use too.

Value Interpreter::method(const NamedBuiltin& builtin, const Value& self) {
  return heap_.function({.builtin = &builtin, .self = self});
}

Value Interpreter::run_builtin(const NamedBuiltin& builtin, const Value& self, const Arguments& arguments) {
  check_arguments(builtin, arguments);
  return builtin.second.run(*this, self, arguments);
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  const Level level(*this);
  if (callee.is(Kind::undefined)) {
    constexpr std::string_view kChanging[] = {"append",  "clear",   "extend", "insert",     "pop", "remove",
                                              "reverse", "popitem", "update", "setdefault", "sort"};
    const bool changes =
        callee.object && std::find(std::begin(kChanging), std::end(kChanging), callee.text()) != std::end(kChanging);
    if (changes) raise("{}() would change a value, which templates may not; make a new one", callee.text());
    raise_undefined(callee);
  }
  if (callee.is(Kind::loop)) {
    static const NamedBuiltin as_builtin = {"loop()", {nullptr, "iterable"}};
    check_arguments(as_builtin, arguments);
    if (callee.loop->is_over) raise("a loop was called after its end");
    if (!callee.loop->recurse) raise("only a recursive loop can be called");
    return callee.loop->recurse(arguments.need(0, "iterable"));
  }
  if (callee.is(Kind::joiner)) {
    if (!arguments.positional.empty() || !arguments.named.empty()) raise("a joiner takes no arguments");
    Cycler& joiner = *callee.cycler;
    return joiner.items[std::min<size_t>(joiner.at++, 1)];
  }
  if (!callee.is(Kind::function)) raise("{} cannot be called", kind_name(callee));
  const Function& function = callee.function();
  if (function.macro) return run_macro(function, arguments);
  return run_builtin(*function.builtin, function.self, arguments);
}

Value Interpreter::filter(const std::string& name, const Value& input, const Arguments& arguments) {
  const Level level(*this);
  const NamedBuiltin* builtin = find_filter(name);
  if (!builtin) raise("the filter '{}' is not known here", name);
  return run_builtin(*builtin, input, arguments);
}

bool Interpreter::test(const std::string& name, const Value& input, const Arguments& arguments) {
  const Level level(*this);
  const NamedBuiltin* builtin = find_test(name);
  if (!builtin) raise("the test '{}' is not known here", name);
  return truthy(run_builtin(*builtin, input, arguments));
}

Value Interpreter::attribute(const Value& object, const Value& name) {
  if (object.is(Kind::undefined)) raise_undefined(object);
  const std::string& text = name.text();
  if (text.starts_with("__")) return Value::undefined(name);
  if (const NamedBuiltin* builtin = find_method(object, text)) return method(*builtin, object);
  if (object.is(Kind::dict) || object.is(Kind::name_space)) {
    const Value* entry = heap_.find(object.dict(), text);
    return entry ? *entry : Value::undefined(name);
  }
  const Value special = special_attribute(*this, object, text);
  return special.is(Kind::undefined) && !special.object ? Value::undefined(name) : special;
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is(Kind::undefined)) raise_undefined(object);
  if (object.is(Kind::dict)) {
    const Value* entry = key.is(Kind::string) ? heap_.find(object.dict(), key.text()) : heap_.find(object.dict(), key);
    if (entry) return *entry;
  }
  if (key.is(Kind::string)) return attribute(object, key);
  if (!key.is_whole()) return {};
  const bool is_text = object.is(Kind::string), is_range = object.is(Kind::range);
  if (!object.is_list() && !is_text && !is_range) return {};
  if (is_text) heap_.spend(object.text().size());
  const size_t size = is_text    ? count_characters(object.text())
                      : is_range ? object.range().size()
                                 : object.items().size();
  const int64_t i = key.whole() < 0 ? key.whole() + static_cast<int64_t>(size) : key.whole();
  if (i < 0 || i >= static_cast<int64_t>(size)) return {};
  const size_t place = static_cast<size_t>(i);
  if (is_range) return Value::of(object.range().at(place));
  if (!is_text) return object.items()[place];
  const size_t at = place_of_character(object.text(), place);
  return heap_.part(object.string(), at, at + character_at(object.text(), at).size);
}

}  // namespace contexture::jinja
