#include "jinja/parser.h"

#include <algorithm>

#include "jinja/expression_parser.h"

namespace contexture::jinja {
namespace {

constexpr size_t kLongestSource = size_t{1} << 20;

/// Reads statements.
class Parser : private ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(source) {}

  Tree run() {
    tree_.body = statements({});
    if (!is(TokenType::end)) fail(fmt::format("unexpected {}", shown()));
    return std::move(tree_);
  }

 private:
  using Body = std::vector<const Statement*>;

  Statement* statement(StatementKind kind) {
    Statement& s = tree_.statements.emplace_back();
    s.kind = kind;
    s.line = now().line;
    return &s;
  }

  /// Up to a tag that starts with one of these words, which is left standing after its {%; or to the end.
  Body statements(const std::vector<std::string_view>& ends) {
    const Level level(*this);
    Body body;
    while (!is(TokenType::end)) {
      if (is(TokenType::data)) {
        Statement* s = statement(StatementKind::data);
        s->data = MarkedText(now().text);
        step();
        body.push_back(s);
      } else if (is(TokenType::variable_begin)) {
        step();
        Statement* s = statement(StatementKind::print);
        s->expressions = {tuple_or_expression()};
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
    if (word == "print") return print_statement();
    if (word == "include" || word == "import" || word == "from" || word == "extends") return refused(word);
    if (word == "block" || word == "autoescape") return refused_block(word);
    fail(fmt::format("the statement '{}' is not known here", word.substr(0, 40)));
  }

  const Statement* print_statement() {
    Statement* s = statement(StatementKind::print);
    while (!is(TokenType::block_end)) {
      if (!s->expressions.empty()) need_symbol(",");
      s->expressions.push_back(expression());
    }
    end_block();
    return s;
  }

  /// What needs other templates, of which there are none. A template may have it where it is never reached.
  Statement* refused(const std::string& word) {
    Statement* s = statement(StatementKind::refused);
    s->text = word;
    while (!is(TokenType::block_end)) {
      if (is(TokenType::end)) fail(fmt::format("'{}' has no end", word));
      step();
    }
    step();
    return s;
  }

  const Statement* refused_block(const std::string& word) {
    Statement* s = refused(word);
    statements({"end" + word});
    while (!is(TokenType::block_end) && !is(TokenType::end)) step();
    end_block();
    return s;
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

  /// `a`, `a.b` (of a namespace), `a, b`, `(a, (b, c))`.
  Target target(bool with_members) {
    Target first = one_target(with_members);
    if (!is_symbol(",")) return first;
    Target all;
    all.parts.push_back(std::move(first));
    while (take_symbol(",")) {
      if (!is_symbol("(") && (!is(TokenType::name) || is_word("in"))) break;
      all.parts.push_back(one_target(with_members));
    }
    return all;
  }

  Target one_target(bool with_members) {
    const Level level(*this);
    if (take_symbol("(")) {
      Target inner = target(with_members);
      need_symbol(")");
      return inner;
    }
    Target one{.name = need_name()};
    if (with_members && take_symbol(".")) one.member = Value::literal(need_name());
    return one;
  }

  const Statement* for_statement() {
    Statement* s = statement(StatementKind::for_);
    s->target = target(/*with_members=*/false);
    if (s->target.name == "loop") fail("'loop' belongs to the for statement");
    need_word("in");
    s->expression = tuple_or_expression(/*with_condition=*/false);
    if (take_word("if")) s->condition = expression();
    s->is_recursive = take_word("recursive");
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
    s->target = target(/*with_members=*/true);
    if (take_symbol("=")) {
      s->expression = tuple_or_expression();
      end_block();
      return s;
    }
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
      if (take_symbol("=")) {
        parameter.fallback = expression();
      } else if (!list.empty() && list.back().fallback) {
        fail(fmt::format("the argument '{}' needs a default, as the one before it has", parameter.name));
      }
      list.push_back(std::move(parameter));
    }
    return list;
  }

  /// Parameters and a body that is run elsewhere: no break or continue in it can reach a loop around it. What it names
  /// says which arguments it takes; a macro around it counts as naming them too.
  void function(Statement* s, std::string_view end) {
    const bool caller = std::exchange(names_caller_, false), varargs = std::exchange(names_varargs_, false),
               kwargs = std::exchange(names_kwargs_, false);
    const int loops = std::exchange(loops_, 0);
    s->body = body_until(end);
    loops_ = loops;
    const auto is_parameter = [&](std::string_view name) {
      return std::any_of(s->parameters.begin(), s->parameters.end(), [&](const auto& p) { return p.name == name; });
    };
    s->takes_caller = names_caller_ && !is_parameter("caller");
    s->takes_varargs = names_varargs_ && !is_parameter("varargs");
    s->takes_kwargs = names_kwargs_ && !is_parameter("kwargs");
    names_caller_ |= caller;
    names_varargs_ |= varargs;
    names_kwargs_ |= kwargs;
  }

  const Statement* macro_statement() {
    Statement* s = statement(StatementKind::macro);
    s->text = need_name();
    s->parameters = parameters();
    function(s, "endmacro");
    return s;
  }

  const Statement* call_statement() {
    Statement* s = statement(StatementKind::call);
    if (is_symbol("(")) s->parameters = parameters();
    s->expression = expression();
    if (s->expression->kind != ExpressionKind::call) fail("{% call %} needs a call, such as {% call name() %}");
    function(s, "endcall");
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
      Target given = target(/*with_members=*/false);
      need_symbol("=");
      s->assignments.emplace_back(std::move(given), expression());
    }
    s->body = body_until("endwith");
    return s;
  }

  int loops_ = 0;  // open ones around the present statement
};

}  // namespace

Tree parse(std::string_view source) {
  if (source.size() > kLongestSource) throw SyntaxFault{"longer than a megabyte; no chat template is", 1};
  return Parser(source).run();
}

}  // namespace contexture::jinja
