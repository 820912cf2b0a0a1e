#include "jinja/parser.h"

#include <charconv>

#include "jinja/cursor.h"

namespace contexture::jinja {
namespace {

constexpr int kDeepestSource = 200;
constexpr size_t kLongestSource = size_t{1} << 20;
constexpr size_t kMostArguments = 64;

class Parser : private Cursor {
 public:
  explicit Parser(std::string_view source) : Cursor(tokenize(source)) {}

  Tree run() {
    tree_.body = statements({});
    if (!is(TokenType::end)) fail(fmt::format("unexpected {}", shown()));
    return std::move(tree_);
  }

 private:
  using Children = std::vector<const Expression*>;
  using Body = std::vector<const Statement*>;

  /// Counts levels of nesting while it lives.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kDeepestSource) parser_.fail(fmt::format("nested deeper than {} levels", kDeepestSource));
    }
    ~Level() { --parser_.depth_; }

   private:
    Parser& parser_;
  };

  // Nodes.

  Expression* node(ExpressionKind kind, Children children = {}, std::string text = {}) {
    Expression& e = tree_.expressions.emplace_back();
    e.kind = kind;
    e.line = now().line;
    e.children = std::move(children);
    e.text = std::move(text);
    return &e;
  }
  Expression* literal(Value value) {
    Expression* e = node(ExpressionKind::literal);
    e->value = value;
    return e;
  }
  Expression* text_literal(std::string text) {
    Expression* e = node(ExpressionKind::literal, {}, std::move(text));
    e->value = Value::view(&e->text);
    return e;
  }
  Statement* statement(StatementKind kind) {
    Statement& s = tree_.statements.emplace_back();
    s.kind = kind;
    s.line = now().line;
    return &s;
  }

  // Statements.

  /// Up to a tag that starts with one of these words, which is left standing after its {%; or to the end.
  Body statements(const std::vector<std::string_view>& ends) {
    const Level level(*this);
    Body body;
    while (!is(TokenType::end)) {
      if (is(TokenType::data)) {
        Statement* s = statement(StatementKind::data);
        s->text = now().text;
        step();
        body.push_back(s);
      } else if (is(TokenType::variable_begin)) {
        step();
        Statement* s = statement(StatementKind::print);
        s->expression = tuple_or_expression();
        need(TokenType::variable_end, "'}}'");
        body.push_back(s);
      } else {
        need(TokenType::block_begin, "'{%'");
        for (const std::string_view end : ends) {
          if (is_word(end)) return body;
        }
        body.push_back(block_statement());
      }
    }
    if (!ends.empty()) fail(fmt::format("the template ends where '{}' was expected", ends.back()));
    return body;
  }

  void end_block() { need(TokenType::block_end, "'%}'"); }

  /// The body of a block and its end tag.
  Body body_until(std::string_view end) {
    end_block();
    Body body = statements({end});
    step();
    end_block();
    return body;
  }

  const Statement* block_statement() {
    const std::string word = need_name();
    if (word == "if") return if_statement();
    if (word == "for") return for_statement();
    if (word == "set") return set_statement();
    if (word == "macro") return macro_statement();
    if (word == "call") return call_statement();
    if (word == "filter") return filter_statement();
    if (word == "with") return with_statement();
    if (word == "generation") {
      Statement* s = statement(StatementKind::generation);
      s->body = body_until("endgeneration");
      return s;
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) fail(fmt::format("'{}' outside a loop", word));
      Statement* s = statement(word == "break" ? StatementKind::break_ : StatementKind::continue_);
      end_block();
      return s;
    }
    fail(fmt::format("the statement '{}' is not known here", word.substr(0, 40)));
  }

  const Statement* if_statement() {
    Statement* s = statement(StatementKind::if_);
    const Expression* condition = tuple_or_expression();
    while (true) {
      end_block();
      Body body = statements({"elif", "else", "endif"});
      s->branches.push_back({condition, std::move(body)});
      if (take_word("elif")) {
        condition = tuple_or_expression();
      } else if (take_word("else")) {
        s->branches.push_back({nullptr, body_until("endif")});
        return s;
      } else {
        step();
        end_block();
        return s;
      }
    }
  }

  void targets(Statement* s) {
    s->unpacks = take_symbol("(");
    const bool bracket = s->unpacks;
    s->names.push_back(need_name());
    while (take_symbol(",")) {
      s->unpacks = true;
      if (!is(TokenType::name) || is_word("in")) break;
      s->names.push_back(need_name());
    }
    if (bracket) need_symbol(")");
  }

  const Statement* for_statement() {
    Statement* s = statement(StatementKind::for_);
    targets(s);
    need_word("in");
    s->expression = tuple_or_expression(/*with_condition=*/false);
    if (take_word("if")) s->condition = expression();
    if (is_word("recursive")) fail("recursive loops are not known here");
    end_block();
    ++loops_;
    s->body = statements({"else", "endfor"});
    --loops_;
    if (take_word("else")) {
      s->otherwise = body_until("endfor");
    } else {
      step();
      end_block();
    }
    return s;
  }

  const Statement* set_statement() {
    Statement* s = statement(StatementKind::set);
    if (next().type == TokenType::symbol && next().text == ".") {
      s->kind = StatementKind::set_member;
      s->names = {need_name()};
      step();
      s->names.push_back(need_name());
    } else {
      targets(s);
    }
    if (take_symbol("=")) {
      s->expression = tuple_or_expression();
      end_block();
      return s;
    }
    if (s->kind == StatementKind::set_member || s->unpacks) fail(fmt::format("expected '=' and not {}", shown()));
    s->kind = StatementKind::set_block;
    while (take_symbol("|")) s->filters.push_back(filter(nullptr));
    s->body = body_until("endset");
    return s;
  }

  std::vector<Statement::Parameter> parameters() {
    std::vector<Statement::Parameter> list;
    need_symbol("(");
    while (!take_symbol(")")) {
      if (!list.empty()) need_symbol(",");
      if (list.size() == kMostArguments) fail(fmt::format("a macro of more than {} arguments", kMostArguments));
      Statement::Parameter parameter{need_name(), nullptr};
      if (take_symbol("=")) parameter.fallback = expression();
      list.push_back(std::move(parameter));
    }
    return list;
  }

  /// A body that is run elsewhere: no break or continue in it can reach a loop around it.
  Body function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body body = body_until(end);
    loops_ = loops;
    return body;
  }

  const Statement* macro_statement() {
    Statement* s = statement(StatementKind::macro);
    s->text = need_name();
    s->parameters = parameters();
    s->body = function_body("endmacro");
    return s;
  }

  const Statement* call_statement() {
    Statement* s = statement(StatementKind::call);
    if (is_symbol("(")) s->parameters = parameters();
    s->expression = expression();
    if (s->expression->kind != ExpressionKind::call) fail("{% call %} needs a call, such as {% call name() %}");
    s->body = function_body("endcall");
    return s;
  }

  const Statement* filter_statement() {
    Statement* s = statement(StatementKind::filter);
    do {
      s->filters.push_back(filter(nullptr));
    } while (take_symbol("|"));
    s->body = body_until("endfilter");
    return s;
  }

  const Statement* with_statement() {
    Statement* s = statement(StatementKind::with);
    while (!is(TokenType::block_end)) {
      if (!s->assignments.empty()) need_symbol(",");
      std::string name = need_name();
      need_symbol("=");
      s->assignments.emplace_back(std::move(name), expression());
    }
    s->body = body_until("endwith");
    return s;
  }

  // Expressions, from the loosest operator to the tightest.

  /// `a, b` is a tuple where no bracket says so.
  const Expression* tuple_or_expression(bool with_condition = true) {
    const Expression* first = with_condition ? expression() : or_();
    if (!is_symbol(",")) return first;
    Children items = {first};
    while (take_symbol(",")) {
      if (is(TokenType::variable_end) || is(TokenType::block_end)) break;
      items.push_back(with_condition ? expression() : or_());
    }
    return node(ExpressionKind::tuple, std::move(items));
  }

  const Expression* expression() {
    const Level level(*this);
    const Expression* value = or_();
    while (take_word("if")) {
      const Expression* condition = or_();
      const Expression* otherwise = take_word("else") ? expression() : nullptr;
      value = node(ExpressionKind::condition, {value, condition, otherwise});
    }
    return value;
  }

  const Expression* or_() {
    const Expression* first = and_();
    if (!is_word("or")) return first;
    Children children = {first};
    while (take_word("or")) children.push_back(and_());
    return node(ExpressionKind::or_, std::move(children));
  }

  const Expression* and_() {
    const Expression* first = not_();
    if (!is_word("and")) return first;
    Children children = {first};
    while (take_word("and")) children.push_back(not_());
    return node(ExpressionKind::and_, std::move(children));
  }

  const Expression* not_() {
    if (!take_word("not")) return compare();
    const Level level(*this);
    return node(ExpressionKind::not_, {not_()});
  }

  std::string comparison() {
    for (const std::string_view symbol : {"==", "!=", "<", "<=", ">", ">="}) {
      if (take_symbol(symbol)) return std::string(symbol);
    }
    if (take_word("in")) return "in";
    if (is_word("not") && next().type == TokenType::name && next().text == "in") {
      step();
      step();
      return "not in";
    }
    return {};
  }

  const Expression* compare() {
    const Expression* first = sum();
    Children children = {first};
    std::vector<std::string> operators;
    for (std::string op = comparison(); !op.empty(); op = comparison()) {
      operators.push_back(std::move(op));
      children.push_back(sum());
    }
    if (operators.empty()) return first;
    Expression* e = node(ExpressionKind::compare, std::move(children));
    e->operators = std::move(operators);
    return e;
  }

  const Expression* sum() {
    const Expression* left = concatenation();
    while (is_symbol("+") || is_symbol("-")) {
      std::string op = now().text;
      step();
      left = node(ExpressionKind::arithmetic, {left, concatenation()}, std::move(op));
    }
    return left;
  }

  const Expression* concatenation() {
    const Expression* first = product();
    if (!is_symbol("~")) return first;
    Children children = {first};
    while (take_symbol("~")) children.push_back(product());
    return node(ExpressionKind::concatenate, std::move(children));
  }

  const Expression* product() {
    const Expression* left = power();
    while (is_symbol("*") || is_symbol("/") || is_symbol("//") || is_symbol("%")) {
      std::string op = now().text;
      step();
      left = node(ExpressionKind::arithmetic, {left, power()}, std::move(op));
    }
    return left;
  }

  const Expression* power() {
    const Expression* left = unary(true);
    while (take_symbol("**")) left = node(ExpressionKind::arithmetic, {left, unary(true)}, "**");
    return left;
  }

  const Expression* unary(bool with_filters) {
    const Level level(*this);
    const Expression* e;
    if (take_symbol("-")) {
      e = node(ExpressionKind::negate, {unary(false)});
    } else if (take_symbol("+")) {
      e = node(ExpressionKind::positive, {unary(false)});
    } else {
      e = primary();
    }
    return postfix(e, with_filters);
  }

  /// `.a`, `[b]`, `(c)`, and with filters `|d` and `is e`, as many as there are.
  const Expression* postfix(const Expression* e, bool with_filters) {
    bool filtered = false;
    while (true) {
      if (!filtered && take_symbol(".")) {
        e = member(e);
      } else if (!filtered && take_symbol("[")) {
        e = subscript(e);
      } else if (is_symbol("(")) {
        Expression* call = node(ExpressionKind::call, {e});
        arguments(call);
        e = call;
      } else if (with_filters && take_symbol("|")) {
        e = filter(e);
        filtered = true;
      } else if (with_filters && take_word("is")) {
        e = test(e);
        filtered = true;
      } else {
        return e;
      }
    }
  }

  const Expression* member(const Expression* object) {
    if (is(TokenType::integer)) {
      const Expression* index = primary();
      return node(ExpressionKind::item, {object, index});
    }
    return node(ExpressionKind::attribute, {object}, need_name());
  }

  const Expression* subscript(const Expression* object) {
    Children parts = {object};
    bool slice = false;
    for (int i = 0; i < 3; ++i) {
      parts.push_back(is_symbol(":") || is_symbol("]") ? nullptr : expression());
      if (!take_symbol(":")) break;
      slice = true;
    }
    need_symbol("]");
    if (!slice) {
      if (!parts[1]) fail("[] without an index");
      return node(ExpressionKind::item, std::move(parts));
    }
    parts.resize(4);
    return node(ExpressionKind::slice, std::move(parts));
  }

  void arguments(Expression* call) {
    need_symbol("(");
    for (size_t i = 0; !take_symbol(")"); ++i) {
      if (i > 0) need_symbol(",");
      if (take_symbol(")")) return;
      if (i == kMostArguments) fail(fmt::format("more than {} arguments", kMostArguments));
      if (is_symbol("*") || is_symbol("**")) fail("* and ** in arguments are not known here");
      if (is(TokenType::name) && next().type == TokenType::symbol && next().text == "=") {
        std::string name = need_name();
        step();
        call->named.emplace_back(std::move(name), expression());
      } else {
        if (!call->named.empty()) fail("an argument without a name follows one with a name");
        call->children.push_back(expression());
      }
    }
  }

  const Expression* filter(const Expression* input) {
    Expression* e = node(ExpressionKind::filter, {input}, need_name());
    while (take_symbol(".")) e->text.append(".").append(need_name());
    if (is_symbol("(")) arguments(e);
    return e;
  }

  const Expression* test(const Expression* input) {
    const bool negated = take_word("not");
    Expression* e = node(ExpressionKind::test, {input}, need_name());
    while (take_symbol(".")) e->text.append(".").append(need_name());
    if (is_symbol("(")) {
      arguments(e);
    } else if (starts_argument()) {
      e->children.push_back(postfix(primary(), /*with_filters=*/false));
    }
    return negated ? node(ExpressionKind::not_, {e}) : e;
  }

  /// `is divisibleby 3`: the argument of a test needs no brackets.
  bool starts_argument() const {
    if (is(TokenType::name)) {
      for (const std::string_view word : {"else", "or", "and", "is", "if", "in", "not", "recursive"}) {
        if (now().text == word) return false;
      }
      return true;
    }
    return is(TokenType::string) || is(TokenType::integer) || is(TokenType::floating) || is_symbol("[") ||
           is_symbol("{");
  }

  const Expression* primary() {
    const Token token = now();
    switch (token.type) {
      case TokenType::name:
        step();
        if (token.text == "true" || token.text == "True") return literal(Value::of(true));
        if (token.text == "false" || token.text == "False") return literal(Value::of(false));
        if (token.text == "none" || token.text == "None") return literal(Value::none());
        return node(ExpressionKind::name, {}, token.text);
      case TokenType::string: {
        std::string text;
        for (; is(TokenType::string); step()) text += now().text;
        return text_literal(std::move(text));
      }
      case TokenType::integer:
        step();
        return literal(Value::of(number<int64_t>(token.text)));
      case TokenType::floating:
        step();
        return literal(Value::of(number<double>(token.text)));
      default:
        if (take_symbol("(")) return bracketed();
        if (take_symbol("[")) return node(ExpressionKind::list, sequence("]"));
        if (take_symbol("{")) return dictionary();
        fail(fmt::format("unexpected {}", shown()));
    }
  }

  template <typename Number>
  Number number(const std::string& text) const {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      fail(fmt::format("the number {} is too large", text.substr(0, 40)));
    return value;
  }

  Children sequence(std::string_view close) {
    Children items;
    while (!take_symbol(close)) {
      if (!items.empty()) need_symbol(",");
      if (take_symbol(close)) break;
      items.push_back(expression());
    }
    return items;
  }

  const Expression* bracketed() {
    if (take_symbol(")")) return node(ExpressionKind::tuple);
    const Expression* first = expression();
    if (take_symbol(")")) return first;
    need_symbol(",");
    Children items = {first};
    while (!take_symbol(")")) {
      if (items.size() > 1) need_symbol(",");
      if (take_symbol(")")) break;
      items.push_back(expression());
    }
    return node(ExpressionKind::tuple, std::move(items));
  }

  const Expression* dictionary() {
    Children items;
    while (!take_symbol("}")) {
      if (!items.empty()) need_symbol(",");
      if (take_symbol("}")) break;
      items.push_back(expression());
      need_symbol(":");
      items.push_back(expression());
    }
    return node(ExpressionKind::dict, std::move(items));
  }

  int depth_ = 0;
  int loops_ = 0;  // open ones around the present statement
  Tree tree_;
};

}  // namespace

Tree parse(std::string_view source) {
  if (source.size() > kLongestSource) throw SyntaxFault{"longer than a megabyte; no chat template is", 1};
  return Parser(source).run();
}

}  // namespace contexture::jinja
