#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "jinja/tree.h"

namespace contexture::jinja {

/// What bounds a rendering, whatever the template does.
struct Limits {
  size_t work = size_t{1} << 27;     ///< bytes made and steps taken (32 each): about a second, and 200 MB
  size_t output = size_t{16} << 20;  ///< bytes
};

/// Runs a template once. Raises Fault; line() then says where.
class Interpreter {
 public:
  Interpreter(const Tree& tree, const Limits& limits, std::time_t now);

  std::string run(const nlohmann::ordered_json& variables);
  int line() const { return line_; }

  // What built-in functions, filters and tests use.
  Heap& heap() { return heap_; }
  std::time_t now() const { return now_; }
  Value call(const Value& function, const Arguments& arguments);
  Value filter(const std::string& name, const Value& input, const Arguments& arguments);
  bool test(const std::string& name, const Value& input, const Arguments& arguments);
  /// Python's object.name; undefined where there is no such thing.
  Value attribute(const Value& object, const std::string& name);
  /// Python's object[key]; undefined where there is no such thing.
  Value item(const Value& object, const Value& key);

 private:
  enum class Flow { on, break_, continue_ };
  class Level;

  Flow run_body(const std::vector<const Statement*>& body, Scope* scope, std::string& out);
  Flow run_statement(const Statement& s, Scope* scope, std::string& out);
  Flow run_if(const Statement& s, Scope* scope, std::string& out);
  Flow run_for(const Statement& s, Scope* scope, std::string& out);
  Flow run_with(const Statement& s, Scope* scope, std::string& out);
  void run_set_member(const Statement& s, Scope* scope);
  void run_call(const Statement& s, Scope* scope, std::string& out);
  Value run_macro(const Function& function, const Arguments& arguments);
  Value captured(const Statement& s, Scope* scope);
  std::vector<Value> loop_items(const Statement& s, Scope* scope);
  void assign(const Statement& s, Scope* scope, const Value& value);
  void write(std::string& out, std::string_view text);

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

  const Tree& tree_;
  const Limits limits_;
  const std::time_t now_;
  Heap heap_;
  int line_ = 1;
  int depth_ = 0;
};

/// Python's `value in container`.
bool contains(Heap& heap, const Value& container, const Value& value);
/// Python's + - * / // % **.
Value arithmetic(Heap& heap, std::string_view op, const Value& a, const Value& b);

}  // namespace contexture::jinja
