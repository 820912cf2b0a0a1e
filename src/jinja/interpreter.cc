#include "jinja/interpreter.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "jinja/builtins.h"

namespace contexture::jinja {
namespace {

void set_all(Heap& heap, Scope* scope, const nlohmann::ordered_json& variables, const Origin& origin) {
  for (const auto& variable : variables.items()) {
    scope->variables[variable.key()] = value_of(heap, variable.value(), origin);
  }
}

}  // namespace

/// A scope that ends with a block.
class Interpreter::Block {
 public:
  Block(Interpreter& in, Scope* parent) : heap_(in.heap_), scope_(heap_.scope(parent)) {}
  ~Block() { heap_.release(scope_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  operator Scope*() const { return scope_; }

 private:
  Heap& heap_;
  Scope* const scope_;
};

Interpreter::Interpreter(const Tree& tree, const Bounds& bounds, size_t input, std::time_t now)
    : tree_(tree), longest_output_(bounds.output), now_(now), heap_(bounds, input) {}

MarkedText Interpreter::run(const Variables& variables) {
  const Block outer(*this, nullptr);
  set_all(heap_, outer, variables.content, {.is_content = true, .own_words = variables.own_words});
  set_all(heap_, outer, variables.own, {});
  const Block scope(*this, outer);
  Writer out(heap_);
  run_body(tree_.body, scope, out);
  return out.text();
}

void Interpreter::write(Writer& out, const MarkedText& text) {
  if (text.size() > longest_output_ - out.size()) raise("it writes more than {} bytes", longest_output_);
  out.add(text);
}

void Interpreter::set(Scope* scope, std::string_view name, const Value& value) {
  heap_.spend(96);
  const auto [place, is_new] = scope->variables.insert_or_assign(name, value);
  if (is_new) scope->charge.grow(96);
}

Interpreter::Flow Interpreter::run_body(const std::vector<const Statement*>& body, Scope* scope, Writer& out) {
  for (const Statement* s : body) {
    const Flow flow = run_statement(*s, scope, out);
    if (flow != Flow::on) return flow;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_statement(const Statement& s, Scope* scope, Writer& out) {
  const Level level(*this);
  line_ = s.line;
  switch (s.kind) {
    case StatementKind::data:
      write(out, s.data);
      return Flow::on;
    case StatementKind::print:
      for (const Expression* e : s.expressions) write(out, soft_string(heap_, evaluate(*e, scope)).string());
      return Flow::on;
    case StatementKind::if_:
      return run_if(s, scope, out);
    case StatementKind::for_:
      return run_for(s, scope, out);
    case StatementKind::set:
      assign(s.target, scope, evaluate(*s.expression, scope));
      return Flow::on;
    case StatementKind::set_block:
      assign(s.target, scope, captured(s, scope));
      return Flow::on;
    case StatementKind::macro:
      for (Scope* at = scope; at; at = at->parent) at->is_kept = true;
      set(scope, s.text, heap_.function({.macro = &s, .scope = scope}));
      return Flow::on;
    case StatementKind::call:
      run_call(s, scope, out);
      return Flow::on;
    case StatementKind::filter:
      write(out, soft_string(heap_, captured(s, scope)).string());
      return Flow::on;
    case StatementKind::with:
      return run_with(s, scope, out);
    case StatementKind::generation:
      return run_body(s.body, scope, out);
    case StatementKind::refused:
      raise("the statement '{}' is not carried out here", s.text);
    case StatementKind::break_:
      return Flow::break_;
    case StatementKind::continue_:
      return Flow::continue_;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_if(const Statement& s, Scope* scope, Writer& out) {
  for (const Statement::Branch& branch : s.branches) {
    if (!branch.condition || truthy(evaluate(*branch.condition, scope))) return run_body(branch.body, scope, out);
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_with(const Statement& s, Scope* scope, Writer& out) {
  const Block inner(*this, scope);
  for (const auto& [target, expression] : s.assignments) assign(target, inner, evaluate(*expression, scope));
  return run_body(s.body, inner, out);
}

/// What the loop runs over, without what its `if` leaves out; looked at only when it is needed.
std::function<bool(Value&)> Interpreter::loop_source(const Statement& s, Scope* scope, const Value& items) {
  Iterator iterator(heap_, items);
  return [this, &s, scope, iterator = std::move(iterator)](Value& item) mutable {
    while (iterator.next(item)) {
      if (!s.condition) return true;
      const Block inner(*this, scope);
      assign(s.target, inner, item);
      if (truthy(evaluate(*s.condition, inner))) return true;
    }
    return false;
  };
}

Interpreter::Flow Interpreter::run_for(const Statement& s, Scope* scope, Writer& out) {
  return run_loop(s, scope, evaluate(*s.expression, scope), 0, out);
}

Interpreter::Flow Interpreter::run_loop(const Statement& s, Scope* scope, const Value& items, size_t depth,
                                        Writer& out) {
  const Level level(*this);
  line_ = s.line;
  Value loop;
  loop.kind = Kind::loop;
  loop.loop = heap_.loop(loop_source(s, scope, items));
  loop.loop->depth = depth;
  if (s.is_recursive) {
    loop.loop->recurse = [this, &s, scope, depth](const Value& inner_items) {
      Writer text(heap_);
      run_loop(s, scope, inner_items, depth + 1, text);
      return text.take();
    };
  }
  Flow flow = Flow::on;
  for (size_t i = 0; flow != Flow::break_ && loop.loop->fetch(i); ++i) {
    loop.loop->index = i;
    const Block inner(*this, scope);
    set(inner, "loop", loop);
    assign(s.target, inner, loop.loop->items[i]);
    flow = run_body(s.body, inner, out);
  }
  if (loop.loop->items.empty()) {
    const Block inner(*this, scope);
    flow = run_body(s.otherwise, inner, out);
  } else {
    flow = Flow::on;
  }
  *loop.loop = {};
  loop.loop->is_over = true;
  return flow;
}

void Interpreter::assign(const Target& target, Scope* scope, const Value& value) {
  if (target.member.is(Kind::string)) return set_member(target, scope, value);
  if (!target.name.empty()) return set(scope, target.name, value);
  const std::vector<Value> parts = items_of(heap_, value);
  if (parts.size() != target.parts.size()) {
    raise("{} values cannot be taken apart into {} names", parts.size(), target.parts.size());
  }
  for (size_t i = 0; i < parts.size(); ++i) assign(target.parts[i], scope, parts[i]);
}

void Interpreter::set_member(const Target& target, Scope* scope, const Value& value) {
  for (Scope* at = scope; at; at = at->parent) {
    const auto found = at->variables.find(target.name);
    if (found == at->variables.end()) continue;
    if (!found->second.is(Kind::name_space)) break;
    std::vector<std::pair<Value, Value>>& entries = found->second.space->entries;
    const size_t before = entries.size();
    heap_.set(entries, target.member, value);
    heap_.account().take_memory((entries.size() - before) * 2 * sizeof(Value));
    return;
  }
  raise("'{}' is no namespace, so its '{}' cannot be set", target.name, target.member.text());
}

Value Interpreter::captured(const Statement& s, Scope* scope) {
  Writer text(heap_);
  {
    const Block inner(*this, scope);
    run_body(s.body, inner, text);
  }
  Value value = text.take();
  for (const Expression* filter : s.filters) value = evaluate_filter(*filter, value, scope);
  return value;
}

void Interpreter::run_call(const Statement& s, Scope* scope, Writer& out) {
  const Value callee = evaluate(*s.expression->children[0], scope);
  Arguments arguments = evaluate_arguments(*s.expression, scope);
  line_ = s.line;
  if (!callee.is(Kind::function) || !callee.function().macro) raise("call needs a macro and not {}", kind_name(callee));
  const Function& macro = callee.function();
  if (!macro.macro->takes_caller) raise("the macro '{}' takes no caller", macro.macro->text);
  for (Scope* at = scope; at; at = at->parent) at->is_kept = true;
  const Value caller = heap_.function({.macro = &s, .scope = scope});
  write(out, run_macro({.macro = macro.macro, .scope = macro.scope, .caller = caller}, arguments).string());
}

/// Gives a macro's names their values.
void Interpreter::bind_arguments(const Function& function, const Arguments& arguments, Scope* scope) {
  const Statement& macro = *function.macro;
  const std::vector<Statement::Parameter>& parameters = macro.parameters;
  std::vector<Value> more;
  std::vector<std::pair<Value, Value>> more_named;
  Value caller = function.caller.is(Kind::function) ? function.caller : Value::undefined(heap_.string("caller"));
  for (size_t i = parameters.size(); i < arguments.positional.size(); ++i) more.push_back(arguments.positional[i]);
  for (const auto& [name, value] : arguments.named) {
    const auto same = [&name = name](const Statement::Parameter& p) { return p.name == name; };
    const size_t place =
        static_cast<size_t>(std::find_if(parameters.begin(), parameters.end(), same) - parameters.begin());
    if (place < parameters.size() && place >= arguments.positional.size()) continue;
    if (name == "caller" && macro.takes_caller) {
      caller = value;
    } else if (macro.takes_kwargs) {
      more_named.emplace_back(heap_.string(name), value);
    } else {
      raise("the macro '{}' {} '{}'", macro.text,
            place < parameters.size() ? "has two values for the argument" : "has no argument", name);
    }
  }
  if (!more.empty() && !macro.takes_varargs) {
    raise("the macro '{}' takes {} arguments and not {}", macro.text, parameters.size(), arguments.positional.size());
  }
  if (macro.takes_caller) set(scope, "caller", caller);
  if (macro.takes_kwargs) set(scope, "kwargs", heap_.dict(std::move(more_named)));
  if (macro.takes_varargs) set(scope, "varargs", heap_.tuple(std::move(more)));
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (const Value* given = arguments.find(i, parameters[i].name)) {
      set(scope, parameters[i].name, *given);
    } else if (parameters[i].fallback) {
      set(scope, parameters[i].name, evaluate(*parameters[i].fallback, scope));
    } else {
      set(scope, parameters[i].name, Value::undefined(heap_.string(parameters[i].name)));
    }
  }
}

Value Interpreter::run_macro(const Function& function, const Arguments& arguments) {
  const Block scope(*this, function.scope);
  bind_arguments(function, arguments, scope);
  Writer text(heap_);
  run_body(function.macro->body, scope, text);
  return text.take();
}

}  // namespace contexture::jinja
