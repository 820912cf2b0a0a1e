#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/lexer.h"

namespace contexture::jinja {

/// A place among a template's tokens. `take_...` steps over a token where it is the one asked for, `need_...` throws
/// SyntaxFault where it is not.
class Cursor {
 public:
  explicit Cursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  bool is(TokenType type) const { return now().type == type; }
  bool is_symbol(std::string_view text) const { return is(TokenType::symbol) && now().text == text; }
  bool is_word(std::string_view text) const { return is(TokenType::name) && now().text == text; }
  void step() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool take_symbol(std::string_view text) {
    if (!is_symbol(text)) return false;
    step();
    return true;
  }
  bool take_word(std::string_view text) {
    if (!is_word(text)) return false;
    step();
    return true;
  }
  void need_symbol(std::string_view text) {
    if (!take_symbol(text)) fail(fmt::format("expected '{}' and not {}", text, shown()));
  }
  void need_word(std::string_view text) {
    if (!take_word(text)) fail(fmt::format("expected '{}' and not {}", text, shown()));
  }
  void need(TokenType type, std::string_view name) {
    if (!is(type)) fail(fmt::format("expected {} and not {}", name, shown()));
    step();
  }
  std::string need_name() {
    if (!is(TokenType::name)) fail(fmt::format("expected a name and not {}", shown()));
    std::string name = now().text;
    step();
    return name;
  }
  std::string shown() const {
    switch (now().type) {
      case TokenType::end:
        return "the end of the template";
      case TokenType::variable_end:
        return "'}}'";
      case TokenType::block_end:
        return "'%}'";
      default:
        return fmt::format("'{}'", now().text.substr(0, 40));
    }
  }
  [[noreturn]] void fail(std::string message) const { throw SyntaxFault{std::move(message), now().line}; }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace contexture::jinja
