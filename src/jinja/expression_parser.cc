#include "jinja/expression_parser.h"

#include <charconv>

namespace contexture::jinja {
namespace {

constexpr int kDeepestSource = 200;

}  // namespace

ExpressionParser::Level::Level(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.depth_ > kDeepestSource) parser_.fail(fmt::format("nested deeper than {} levels", kDeepestSource));
}

Expression* ExpressionParser::node(ExpressionKind kind, Children children, std::string text) {
  Expression& e = tree_.expressions.emplace_back();
  e.kind = kind;
  e.line = now().line;
  e.children = std::move(children);
  e.text = std::move(text);
  return &e;
}

Expression* ExpressionParser::literal(Value value) {
  Expression* e = node(ExpressionKind::literal);
  e->value = std::move(value);
  return e;
}

Expression* ExpressionParser::text_node(ExpressionKind kind, Children children, std::string text) {
  Expression* e = node(kind, std::move(children));
  e->value = Value::literal(std::move(text));
  return e;
}

const Expression* ExpressionParser::name(const std::string& text) {
  names_caller_ |= text == "caller";
  names_varargs_ |= text == "varargs";
  names_kwargs_ |= text == "kwargs";
  return text_node(ExpressionKind::name, {}, text);
}

// Expressions, from the loosest operator to the tightest.

/// `a, b` is a tuple where no bracket says so.
const Expression* ExpressionParser::tuple_or_expression(bool with_condition) {
  const Expression* first = with_condition ? expression() : or_();
  if (!is_symbol(",")) return first;
  Children items = {first};
  while (take_symbol(",")) {
    if (is(TokenType::variable_end) || is(TokenType::block_end)) break;
    items.push_back(with_condition ? expression() : or_());
  }
  return node(ExpressionKind::tuple, std::move(items));
}

const Expression* ExpressionParser::expression() {
  const Level level(*this);
  const Expression* value = or_();
  while (take_word("if")) {
    const Expression* condition = or_();
    const Expression* otherwise = take_word("else") ? expression() : nullptr;
    value = node(ExpressionKind::condition, {value, condition, otherwise});
  }
  return value;
}

const Expression* ExpressionParser::or_() {
  const Expression* first = and_();
  if (!is_word("or")) return first;
  Children children = {first};
  while (take_word("or")) children.push_back(and_());
  return node(ExpressionKind::or_, std::move(children));
}

const Expression* ExpressionParser::and_() {
  const Expression* first = not_();
  if (!is_word("and")) return first;
  Children children = {first};
  while (take_word("and")) children.push_back(not_());
  return node(ExpressionKind::and_, std::move(children));
}

const Expression* ExpressionParser::not_() {
  if (!take_word("not")) return compare();
  const Level level(*this);
  return node(ExpressionKind::not_, {not_()});
}

std::string ExpressionParser::comparison() {
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

const Expression* ExpressionParser::compare() {
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

const Expression* ExpressionParser::sum() {
  const Expression* left = concatenation();
  while (is_symbol("+") || is_symbol("-")) {
    std::string op = now().text;
    step();
    left = node(ExpressionKind::arithmetic, {left, concatenation()}, std::move(op));
  }
  return left;
}

const Expression* ExpressionParser::concatenation() {
  const Expression* first = product();
  if (!is_symbol("~")) return first;
  Children children = {first};
  while (take_symbol("~")) children.push_back(product());
  return node(ExpressionKind::concatenate, std::move(children));
}

const Expression* ExpressionParser::product() {
  const Expression* left = power();
  while (is_symbol("*") || is_symbol("/") || is_symbol("//") || is_symbol("%")) {
    std::string op = now().text;
    step();
    left = node(ExpressionKind::arithmetic, {left, power()}, std::move(op));
  }
  return left;
}

const Expression* ExpressionParser::power() {
  const Expression* left = unary(true);
  while (take_symbol("**")) left = node(ExpressionKind::arithmetic, {left, unary(true)}, "**");
  return left;
}

const Expression* ExpressionParser::unary(bool with_filters) {
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
const Expression* ExpressionParser::postfix(const Expression* e, bool with_filters) {
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

const Expression* ExpressionParser::member(const Expression* object) {
  if (is(TokenType::integer)) {
    const Expression* index = primary();
    return node(ExpressionKind::item, {object, index});
  }
  return text_node(ExpressionKind::attribute, {object}, need_name());
}

const Expression* ExpressionParser::subscript(const Expression* object) {
  Children parts = {object};
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    parts.push_back(is_symbol(":") || is_symbol("]") ? nullptr : expression());
    if (!take_symbol(":")) break;
    slice = true;
  }
  if (!slice) {
    if (!parts[1]) fail("[] without an index");
    if (take_symbol(",")) {
      Children items = sequence("]");
      items.insert(items.begin(), parts[1]);
      parts[1] = node(ExpressionKind::tuple, std::move(items));
    } else {
      need_symbol("]");
    }
    return node(ExpressionKind::item, std::move(parts));
  }
  need_symbol("]");
  parts.resize(4);
  return node(ExpressionKind::slice, std::move(parts));
}

void ExpressionParser::arguments(Expression* call) {
  need_symbol("(");
  for (size_t i = 0; !take_symbol(")"); ++i) {
    if (i > 0) need_symbol(",");
    if (take_symbol(")")) return;
    if (i == kMostArguments) fail(fmt::format("more than {} arguments", kMostArguments));
    argument(call);
  }
}

void ExpressionParser::argument(Expression* call) {
  if (call->more_named) fail("an argument follows **, which is the last");
  if (take_symbol("**")) {
    call->more_named = expression();
  } else if (take_symbol("*")) {
    if (call->more) fail("two * among the arguments");
    call->more = expression();
  } else if (is(TokenType::name) && next().type == TokenType::symbol && next().text == "=") {
    std::string name = need_name();
    step();
    for (const auto& given : call->named) {
      if (given.first == name) fail(fmt::format("two values for the argument '{}'", name));
    }
    call->named.emplace_back(std::move(name), expression());
  } else {
    if (call->more || !call->named.empty()) fail("an argument without a name follows * or one with a name");
    call->children.push_back(expression());
  }
}

const Expression* ExpressionParser::filter(const Expression* input) {
  Expression* e = node(ExpressionKind::filter, {input}, need_name());
  while (take_symbol(".")) e->text.append(".").append(need_name());
  if (is_symbol("(")) arguments(e);
  return e;
}

const Expression* ExpressionParser::test(const Expression* input) {
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
bool ExpressionParser::starts_argument() const {
  if (is(TokenType::name)) {
    for (const std::string_view word : {"else", "or", "and", "is", "if", "in", "not", "recursive"}) {
      if (now().text == word) return false;
    }
    return true;
  }
  return is(TokenType::string) || is(TokenType::integer) || is(TokenType::floating) || is_symbol("[") || is_symbol("{");
}

const Expression* ExpressionParser::primary() {
  const Token token = now();
  switch (token.type) {
    case TokenType::name:
      step();
      if (token.text == "true" || token.text == "True") return literal(Value::of(true));
      if (token.text == "false" || token.text == "False") return literal(Value::of(false));
      if (token.text == "none" || token.text == "None") return literal(Value::none());
      return name(token.text);
    case TokenType::string: {
      std::string text;
      for (; is(TokenType::string); step()) text += now().text;
      return text_node(ExpressionKind::literal, {}, std::move(text));
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
Number ExpressionParser::number(const std::string& text) const {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail(fmt::format("the number {} is too large", text.substr(0, 40)));
  return value;
}

ExpressionParser::Children ExpressionParser::sequence(std::string_view close) {
  Children items;
  while (!take_symbol(close)) {
    if (!items.empty()) need_symbol(",");
    if (take_symbol(close)) break;
    items.push_back(expression());
  }
  return items;
}

const Expression* ExpressionParser::bracketed() {
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

const Expression* ExpressionParser::dictionary() {
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

}  // namespace contexture::jinja
