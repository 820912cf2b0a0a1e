#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace contexture::jinja {

enum class TokenType {
  data,            ///< text outside tags, its white space already controlled
  variable_begin,  ///< {{
  variable_end,    ///< }}
  block_begin,     ///< {%
  block_end,       ///< %}
  name,
  string,  ///< without its quotes, escapes resolved
  integer,
  floating,
  symbol,  ///< an operator or a bracket
  end,
};

struct Token {
  TokenType type;
  std::string text;
  int line;
};

/// A mistake in a template's text; Template adds the file's name.
struct SyntaxFault {
  std::string message;
  int line;
};

/// Cuts a template into tokens, as Jinja2 does with trim_blocks and lstrip_blocks on and keep_trailing_newline off,
/// which is how chat templates are read: a block tag takes with it the newline after it and the spaces before it on its
/// line;
/// "-" takes all white space, "+" leaves it. The last token is an `end`. Throws SyntaxFault.
std::vector<Token> tokenize(std::string_view source);

}  // namespace contexture::jinja
