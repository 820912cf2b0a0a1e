#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "jinja/tree.h"

namespace contexture::jinja {

/// What a template is rendered with.
struct Variables {
  const nlohmann::ordered_json& own;      ///< the template's own: an object whose entries it sees as its variables
  const nlohmann::ordered_json& content;  ///< the same, from outside
  std::span<const std::string_view> own_words = {};  ///< texts that are no content wherever they come from
};

/// Runs a template once. Raises Fault; line() then says where.
class Interpreter {
 public:
  Interpreter(const Tree& tree, const Bounds& bounds, size_t input, std::time_t now);

  MarkedText run(const Variables& variables);
  int line() const { return line_; }

  // What built-in functions, filters and tests use.
  Heap& heap() { return heap_; }
  std::time_t now() const { return now_; }
  Value call(const Value& function, const Arguments& arguments);
  Value filter(const std::string& name, const Value& input, const Arguments& arguments);
  bool test(const std::string& name, const Value& input, const Arguments& arguments);
  /// Python's object.name; undefined where there is no such thing.
  Value attribute(const Value& object, const Value& name);
  /// Python's object[key]; undefined where there is no such thing.
  Value item(const Value& object, const Value& key);

  /// One more level of expressions, statements, macros or generators in each other while it lives.
  class Level;

 private:
  enum class Flow { on, break_, continue_ };
  class Block;

  Flow run_body(const std::vector<const Statement*>& body, Scope* scope, Writer& out);
  Flow run_statement(const Statement& s, Scope* scope, Writer& out);
  Flow run_if(const Statement& s, Scope* scope, Writer& out);
  Flow run_for(const Statement& s, Scope* scope, Writer& out);
  Flow run_loop(const Statement& s, Scope* scope, const Value& items, size_t depth, Writer& out);
  Flow run_with(const Statement& s, Scope* scope, Writer& out);
  void run_call(const Statement& s, Scope* scope, Writer& out);
  Value run_macro(const Function& function, const Arguments& arguments);
  void bind_arguments(const Function& function, const Arguments& arguments, Scope* scope);
  Value captured(const Statement& s, Scope* scope);
  std::function<bool(Value&)> loop_source(const Statement& s, Scope* scope, const Value& items);
  void assign(const Target& target, Scope* scope, const Value& value);
  void set_member(const Target& target, Scope* scope, const Value& value);
  void write(Writer& out, const MarkedText& text);

  Value evaluate(const Expression& e, Scope* scope);
  Value evaluate_name(const Expression& e, Scope* scope);
  Value evaluate_dict(const Expression& e, Scope* scope);
  Value evaluate_slice(const Expression& e, Scope* scope);
  Value evaluate_call(const Expression& e, Scope* scope);
  Value evaluate_filter(const Expression& e, const Value& input, Scope* scope);
  Value evaluate_compare(const Expression& e, Scope* scope);
  Value evaluate_concatenation(const Expression& e, Scope* scope);
  std::vector<Value> evaluate_all(const Expression& e, Scope* scope);
  Arguments evaluate_arguments(const Expression& e, Scope* scope);
  bool compare(const std::string& op, const Value& a, const Value& b);
  void set(Scope* scope, std::string_view name, const Value& value);
  Value run_builtin(const NamedBuiltin& builtin, const Value& self, const Arguments& arguments);
  Value method(const NamedBuiltin& builtin, const Value& self);

  const Tree& tree_;
  const size_t longest_output_;
  const std::time_t now_;
  Heap heap_;
  int line_ = 1;
  int depth_ = 0;
};

class Interpreter::Level {
 public:
  explicit Level(Interpreter& interpreter) : depth_(interpreter.depth_) {
    constexpr int kDeepest = 400;  // the stack that a rendering may use
    interpreter.heap_.spend(32);
    if (depth_ >= kDeepest) raise("nested deeper than {} levels; does a macro call itself without end?", kDeepest);
    ++depth_;
  }
  ~Level() { --depth_; }

 private:
  int& depth_;
};

/// Python's + - * / // % **.
Value arithmetic(Interpreter& in, std::string_view op, const Value& a, const Value& b);

/// Of a loop, macro, range, cycler, group or generator: what is no method. Undefined where there is none of this name.
Value special_attribute(Interpreter& in, const Value& object, std::string_view name);

}  // namespace contexture::jinja
