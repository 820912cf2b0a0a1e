#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/cursor.h"
#include "jinja/tree.h"

namespace contexture::jinja {

inline constexpr size_t kMostArguments = 64;

/// Reads expressions into a tree, which it owns.
class ExpressionParser : protected Cursor {
 public:
  explicit ExpressionParser(std::string_view source) : Cursor(tokenize(source)) {}

 protected:
  using Children = std::vector<const Expression*>;

  /// Counts levels of nesting while it lives.
  class Level {
   public:
    explicit Level(ExpressionParser& parser);
    ~Level() { --parser_.depth_; }

   private:
    ExpressionParser& parser_;
  };

  const Expression* tuple_or_expression(bool with_condition = true);
  const Expression* expression();
  const Expression* filter(const Expression* input);

  Tree tree_;
  bool names_caller_ = false, names_varargs_ = false, names_kwargs_ = false;  // seen since these were reset

 private:
  Expression* node(ExpressionKind kind, Children children = {}, std::string text = {});
  Expression* literal(Value value);
  Expression* text_node(ExpressionKind kind, Children children, std::string text);
  const Expression* name(const std::string& text);

  const Expression* or_();
  const Expression* and_();
  const Expression* not_();
  std::string comparison();
  const Expression* compare();
  const Expression* sum();
  const Expression* concatenation();
  const Expression* product();
  const Expression* power();
  const Expression* unary(bool with_filters);
  const Expression* postfix(const Expression* e, bool with_filters);
  const Expression* member(const Expression* object);
  const Expression* subscript(const Expression* object);
  void arguments(Expression* call);
  void argument(Expression* call);
  const Expression* test(const Expression* input);
  bool starts_argument() const;
  const Expression* primary();
  template <typename Number>
  Number number(const std::string& text) const;
  Children sequence(std::string_view close);
  const Expression* bracketed();
  const Expression* dictionary();

  int depth_ = 0;
};

}  // namespace contexture::jinja
