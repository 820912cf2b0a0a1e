#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace contexture::jinja {

enum class ExpressionKind {
  literal,      ///< value
  name,         ///< text
  list,         ///< children
  tuple,        ///< children
  dict,         ///< children: key, value, key, value...
  attribute,    ///< children[0] . text
  item,         ///< children[0] [ children[1] ]
  slice,        ///< children[0] [ children[1] : children[2] : children[3] ], each of the three perhaps null
  call,         ///< children[0] ( the rest, named )
  filter,       ///< children[0] | text ( the rest, named )
  test,         ///< children[0] is text ( the rest, named )
  not_,         ///< children[0]
  and_,         ///< children
  or_,          ///< children
  compare,      ///< children[0] operators[0] children[1] operators[1] ...
  concatenate,  ///< children, as text
  arithmetic,   ///< children[0] text children[1]
  negate,       ///< children[0]
  positive,     ///< children[0]
  condition,    ///< children[0] if children[1] else children[2] (may be null)
};

struct Expression {
  ExpressionKind kind;
  int line;
  std::string text = {};
  Value value = {};
  std::vector<const Expression*> children = {};
  std::vector<std::pair<std::string, const Expression*>> named = {};  ///< keyword arguments
  std::vector<std::string> operators = {};
};

enum class StatementKind {
  data,        ///< text
  print,       ///< expression
  if_,         ///< branches
  for_,        ///< targets in expression [if condition]: body, otherwise
  set,         ///< targets = expression
  set_block,   ///< targets = filters applied to body
  set_member,  ///< namespace names[0] . names[1] = expression
  macro,       ///< text ( parameters ): body
  call,        ///< expression, with body as caller ( parameters )
  filter,      ///< filters applied to body
  with,        ///< assignments, body
  generation,  ///< body, as it is
  break_,
  continue_,
};

/// One statement; which fields mean something depends on its kind.
struct Statement {
  struct Branch {
    const Expression* condition;  // null: else
    std::vector<const Statement*> body;
  };
  struct Parameter {
    std::string name;
    const Expression* fallback;  // null: none
  };

  StatementKind kind;
  int line;
  std::string text = {};
  std::vector<std::string> names = {};  ///< targets: one, or those that a tuple is taken apart into
  bool unpacks = false;                 ///< `names` came as a tuple
  const Expression* expression = nullptr;
  const Expression* condition = nullptr;
  std::vector<const Statement*> body = {};
  std::vector<const Statement*> otherwise = {};
  std::vector<Branch> branches = {};
  std::vector<Parameter> parameters = {};
  std::vector<const Expression*> filters = {};  ///< of kind filter, without children[0]
  std::vector<std::pair<std::string, const Expression*>> assignments = {};
};

/// A parsed template. Owns its nodes flat, so that a deep tree needs no deep stack to go.
struct Tree {
  std::deque<Expression> expressions;
  std::deque<Statement> statements;
  std::vector<const Statement*> body;
};

}  // namespace contexture::jinja
