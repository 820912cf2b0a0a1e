#include "jinja/interpreter.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "jinja/builtins.h"
#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

/// Levels of expressions, statements and macros in each other: the stack that a rendering may use.
constexpr int kDeepestCall = 400;

[[noreturn]] void raise_undefined(const Value& value) {
  if (value.name) raise("'{}' is undefined", *value.name);
  raise("a value is undefined");
}

}  // namespace

class Interpreter::Level {
 public:
  explicit Level(Interpreter& interpreter) : depth_(interpreter.depth_) {
    interpreter.heap_.spend(32);
    if (depth_ >= kDeepestCall)
      raise("nested deeper than {} levels; does a macro call itself without end?", kDeepestCall);
    ++depth_;
  }
  ~Level() { --depth_; }

 private:
  int& depth_;
};

Interpreter::Interpreter(const Tree& tree, const Limits& limits, std::time_t now)
    : tree_(tree), limits_(limits), now_(now), heap_(limits.work) {}

std::string Interpreter::run(const nlohmann::ordered_json& variables) {
  Scope* scope = heap_.scope(nullptr);
  for (const auto& variable : variables.items()) {
    scope->variables[variable.key()] = value_of(heap_, variable.value());
  }
  std::string out;
  run_body(tree_.body, heap_.scope(scope), out);
  return out;
}

// Statements.

void Interpreter::write(std::string& out, std::string_view text) {
  heap_.spend(text.size());
  if (text.size() > limits_.output - out.size()) raise("it writes more than {} bytes", limits_.output);
  out += text;
}

void Interpreter::set(Scope* scope, std::string_view name, const Value& value) {
  heap_.spend(96);
  scope->variables[name] = value;
}

Interpreter::Flow Interpreter::run_body(const std::vector<const Statement*>& body, Scope* scope, std::string& out) {
  for (const Statement* s : body) {
    const Flow flow = run_statement(*s, scope, out);
    if (flow != Flow::on) return flow;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_statement(const Statement& s, Scope* scope, std::string& out) {
  const Level level(*this);
  line_ = s.line;
  switch (s.kind) {
    case StatementKind::data:
      write(out, s.text);
      return Flow::on;
    case StatementKind::print: {
      const Value value = evaluate(*s.expression, scope);
      write(out, value.is(Kind::string) ? *value.string : text_of(heap_, value));
      return Flow::on;
    }
    case StatementKind::if_:
      return run_if(s, scope, out);
    case StatementKind::for_:
      return run_for(s, scope, out);
    case StatementKind::set:
      assign(s, scope, evaluate(*s.expression, scope));
      return Flow::on;
    case StatementKind::set_block:
      set(scope, s.names[0], captured(s, scope));
      return Flow::on;
    case StatementKind::set_member:
      run_set_member(s, scope);
      return Flow::on;
    case StatementKind::macro:
      set(scope, s.text, heap_.function({.macro = &s, .scope = scope}));
      return Flow::on;
    case StatementKind::call:
      run_call(s, scope, out);
      return Flow::on;
    case StatementKind::filter:
      write(out, text_of(heap_, captured(s, scope)));
      return Flow::on;
    case StatementKind::with:
      return run_with(s, scope, out);
    case StatementKind::generation:
      return run_body(s.body, scope, out);
    case StatementKind::break_:
      return Flow::break_;
    case StatementKind::continue_:
      return Flow::continue_;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_if(const Statement& s, Scope* scope, std::string& out) {
  for (const Statement::Branch& branch : s.branches) {
    if (!branch.condition || truthy(evaluate(*branch.condition, scope))) return run_body(branch.body, scope, out);
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_with(const Statement& s, Scope* scope, std::string& out) {
  Scope* inner = heap_.scope(scope);
  for (const auto& [name, expression] : s.assignments) set(inner, name, evaluate(*expression, scope));
  return run_body(s.body, inner, out);
}

/// What the loop runs over, without what its `if` leaves out.
std::vector<Value> Interpreter::loop_items(const Statement& s, Scope* scope) {
  const Value sequence = evaluate(*s.expression, scope);
  line_ = s.line;
  std::vector<Value> items = items_of(heap_, sequence);
  if (!s.condition) return items;
  std::vector<Value> kept;
  for (const Value& item : items) {
    Scope* inner = heap_.scope(scope);
    assign(s, inner, item);
    if (truthy(evaluate(*s.condition, inner))) kept.push_back(item);
  }
  return kept;
}

Interpreter::Flow Interpreter::run_for(const Statement& s, Scope* scope, std::string& out) {
  Value loop;
  loop.kind = Kind::loop;
  loop.loop = heap_.loop(loop_items(s, scope));
  const std::vector<Value>& items = loop.loop->items;
  if (items.empty()) return run_body(s.otherwise, heap_.scope(scope), out);
  for (size_t i = 0; i < items.size(); ++i) {
    loop.loop->index = i;
    Scope* inner = heap_.scope(scope);
    set(inner, "loop", loop);
    assign(s, inner, items[i]);
    if (run_body(s.body, inner, out) == Flow::break_) break;
  }
  return Flow::on;
}

void Interpreter::assign(const Statement& s, Scope* scope, const Value& value) {
  if (!s.unpacks) return set(scope, s.names[0], value);
  const std::vector<Value> parts = items_of(heap_, value);
  if (parts.size() != s.names.size()) {
    raise("{} values cannot be taken apart into {} names", parts.size(), s.names.size());
  }
  for (size_t i = 0; i < parts.size(); ++i) set(scope, s.names[i], parts[i]);
}

void Interpreter::run_set_member(const Statement& s, Scope* scope) {
  const Value value = evaluate(*s.expression, scope);
  line_ = s.line;
  for (Scope* at = scope; at; at = at->parent) {
    const auto found = at->variables.find(s.names[0]);
    if (found == at->variables.end()) continue;
    if (!found->second.is(Kind::name_space)) break;
    heap_.set(*found->second.dict, Value::view(&s.names[1]), value);
    return;
  }
  raise("'{}' is no namespace, so its '{}' cannot be set", s.names[0], s.names[1]);
}

Value Interpreter::captured(const Statement& s, Scope* scope) {
  std::string text;
  run_body(s.body, heap_.scope(scope), text);
  Value value = heap_.string(std::move(text));
  for (const Expression* filter : s.filters) value = evaluate_filter(*filter, value, scope);
  return value;
}

void Interpreter::run_call(const Statement& s, Scope* scope, std::string& out) {
  const Value callee = evaluate(*s.expression->children[0], scope);
  const Arguments arguments = evaluate_arguments(*s.expression, scope);
  line_ = s.line;
  if (!callee.is(Kind::function) || !callee.function->macro) raise("call needs a macro and not {}", kind_name(callee));
  Function function = *callee.function;
  function.caller = heap_.function({.macro = &s, .scope = scope});
  write(out, *run_macro(function, arguments).string);
}

Value Interpreter::run_macro(const Function& function, const Arguments& arguments) {
  const Statement& macro = *function.macro;
  if (arguments.positional.size() > macro.parameters.size()) {
    raise("the macro '{}' takes {} arguments and not {}", macro.text, macro.parameters.size(),
          arguments.positional.size());
  }
  Scope* scope = heap_.scope(function.scope);
  if (function.caller.is(Kind::function)) set(scope, "caller", function.caller);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Statement::Parameter& parameter = macro.parameters[i];
    Value value = Value::undefined(&parameter.name);
    if (const Value* given = arguments.find(i, parameter.name)) {
      value = *given;
    } else if (parameter.fallback) {
      value = evaluate(*parameter.fallback, scope);
    }
    set(scope, parameter.name, value);
  }
  for (const auto& [name, value] : arguments.named) {
    const auto same = [&name = name](const Statement::Parameter& p) { return p.name == name; };
    if (std::none_of(macro.parameters.begin(), macro.parameters.end(), same)) {
      raise("the macro '{}' has no argument '{}'", macro.text, name);
    }
  }
  std::string text;
  run_body(macro.body, scope, text);
  return heap_.string(std::move(text));
}

// Expressions.

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
      return heap_.list(evaluate_all(e, scope), Kind::tuple);
    case ExpressionKind::dict:
      return evaluate_dict(e, scope);
    case ExpressionKind::attribute:
      return attribute(evaluate(*e.children[0], scope), e.text);
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
      return arithmetic(heap_, e.text, left, right);
    }
    case ExpressionKind::negate:
      return arithmetic(heap_, "-", Value::of(int64_t{0}), evaluate(*e.children[0], scope));
    case ExpressionKind::positive:
      return arithmetic(heap_, "+", Value::of(int64_t{0}), evaluate(*e.children[0], scope));
    case ExpressionKind::condition:
      if (truthy(evaluate(*e.children[1], scope))) return evaluate(*e.children[0], scope);
      return e.children[2] ? evaluate(*e.children[2], scope) : Value();
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& e, Scope* scope) {
  for (Scope* at = scope; at; at = at->parent) {
    const auto found = at->variables.find(e.text);
    if (found != at->variables.end()) return found->second;
  }
  if (const Builtin builtin = find_global(e.text)) return heap_.function({.builtin = builtin});
  return Value::undefined(&e.text);
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
  for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value, scope));
  line_ = e.line;
  return arguments;
}

Value Interpreter::evaluate_dict(const Expression& e, Scope* scope) {
  const Value value = heap_.dict();
  for (size_t i = 0; i < e.children.size(); i += 2) {
    const Value key = evaluate(*e.children[i], scope);
    heap_.set(*value.dict, key, evaluate(*e.children[i + 1], scope));
  }
  return value;
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
  for (const Value& value : {a, b}) {
    if (value.is(Kind::undefined)) raise_undefined(value);
  }
  if (op == "<") return less(heap_, a, b);
  if (op == ">") return less(heap_, b, a);
  if (op == "<=") return less(heap_, a, b) || equal(heap_, a, b);
  return less(heap_, b, a) || equal(heap_, a, b);
}

Value Interpreter::evaluate_concatenation(const Expression& e, Scope* scope) {
  std::string text;
  for (const Expression* child : e.children) text += text_of(heap_, evaluate(*child, scope));
  return heap_.string(std::move(text));
}

Value Interpreter::evaluate_slice(const Expression& e, Scope* scope) {
  const Value object = evaluate(*e.children[0], scope);
  int64_t bounds[3] = {0, 0, 1};
  bool given[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    if (!e.children[i + 1]) continue;
    const Value bound = evaluate(*e.children[i + 1], scope);
    if (bound.is(Kind::none)) continue;
    if (!bound.is_whole()) raise("a slice needs whole numbers and not {}", kind_name(bound));
    bounds[i] = bound.whole();
    given[i] = true;
  }
  line_ = e.line;
  if (object.is(Kind::undefined)) raise_undefined(object);
  if (!object.is_list() && !object.is(Kind::string)) raise("{} cannot be sliced", kind_name(object));
  const int64_t step = bounds[2];
  if (step == 0) raise("a slice's step is zero");
  const std::vector<Value> items = items_of(heap_, object);
  const int64_t size = static_cast<int64_t>(items.size());
  // Python's slice.indices().
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto clamp = [&](int64_t i) { return std::clamp(i < 0 ? i + size : i, low, high); };
  const int64_t start = given[0] ? clamp(bounds[0]) : step > 0 ? low : high;
  const int64_t stop = given[1] ? clamp(bounds[1]) : step > 0 ? high : low;
  std::vector<Value> kept;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    kept.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (object.is_list()) return heap_.list(std::move(kept), object.kind);
  std::string text;
  for (const Value& character : kept) text += *character.string;
  return heap_.string(std::move(text));
}

// What built-ins use too.

Value Interpreter::call(const Value& function, const Arguments& arguments) {
  const Level level(*this);
  if (function.is(Kind::undefined)) raise_undefined(function);
  if (!function.is(Kind::function)) raise("{} cannot be called", kind_name(function));
  if (function.function->macro) return run_macro(*function.function, arguments);
  return function.function->builtin(*this, function.function->self, arguments);
}

Value Interpreter::filter(const std::string& name, const Value& input, const Arguments& arguments) {
  const Level level(*this);
  const Builtin builtin = find_filter(name);
  if (!builtin) raise("the filter '{}' is not known here", name);
  return builtin(*this, input, arguments);
}

bool Interpreter::test(const std::string& name, const Value& input, const Arguments& arguments) {
  const Level level(*this);
  const Test test = find_test(name);
  if (!test) raise("the test '{}' is not known here", name);
  return test(*this, input, arguments);
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (object.is(Kind::undefined)) raise_undefined(object);
  if (const Builtin method = find_method(object.kind, name)) {
    return heap_.function({.builtin = method, .self = object});
  }
  if (object.is(Kind::dict) || object.is(Kind::name_space)) {
    if (const Value* entry = heap_.find(*object.dict, name)) return *entry;
  }
  if (!object.is(Kind::loop)) return Value::undefined(&name);
  const Loop& loop = *object.loop;
  const size_t size = loop.items.size();
  if (name == "index") return Value::of(loop.index + 1);
  if (name == "index0") return Value::of(loop.index);
  if (name == "revindex") return Value::of(size - loop.index);
  if (name == "revindex0") return Value::of(size - loop.index - 1);
  if (name == "first") return Value::of(loop.index == 0);
  if (name == "last") return Value::of(loop.index + 1 == size);
  if (name == "length") return Value::of(size);
  if (name == "depth") return Value::of(int64_t{1});
  if (name == "depth0") return Value::of(int64_t{0});
  if (name == "previtem" && loop.index > 0) return loop.items[loop.index - 1];
  if (name == "nextitem" && loop.index + 1 < size) return loop.items[loop.index + 1];
  return Value::undefined(&name);
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is(Kind::undefined)) raise_undefined(object);
  if (object.is(Kind::dict)) {
    const Value* entry = key.is(Kind::string) ? heap_.find(*object.dict, *key.string) : heap_.find(*object.dict, key);
    if (entry) return *entry;
  }
  if (key.is(Kind::string)) return attribute(object, *key.string);
  if (!key.is_whole()) return {};
  if (object.is_list()) {
    const int64_t size = static_cast<int64_t>(object.list->items.size());
    const int64_t i = key.whole() < 0 ? key.whole() + size : key.whole();
    return i >= 0 && i < size ? object.list->items[static_cast<size_t>(i)] : Value();
  }
  if (!object.is(Kind::string)) return {};
  const std::vector<Value> characters = items_of(heap_, object);
  const int64_t size = static_cast<int64_t>(characters.size());
  const int64_t i = key.whole() < 0 ? key.whole() + size : key.whole();
  return i >= 0 && i < size ? characters[static_cast<size_t>(i)] : Value();
}

}  // namespace contexture::jinja
