#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace contexture::jinja {

enum class ExpressionKind {
  literal,      ///< value
  name,         ///< value, its text
  list,         ///< children
  tuple,        ///< children
  dict,         ///< children: key, value, key, value...
  attribute,    ///< children[0] . value, its name
  item,         ///< children[0] [ children[1] ]
  slice,        ///< children[0] [ children[1] : children[2] : children[3] ], each of the three perhaps null
  call,         ///< children[0] ( the rest, *more, named, **more_named )
  filter,       ///< children[0] | text, arguments as of a call
  test,         ///< children[0] is text, arguments as of a call
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
  const Expression* more = nullptr;                                   ///< *arguments
  const Expression* more_named = nullptr;                             ///< **arguments
  std::vector<std::string> operators = {};
};

/// What a value is given to: a name, a namespace's member, or a tuple of such.
struct Target {
  std::string name = {};  ///< empty: a tuple
  Value member = {};      ///< name . member; undefined: the name itself
  std::vector<Target> parts = {};
};

enum class StatementKind {
  data,        ///< data, as it is
  print,       ///< expressions
  if_,         ///< branches
  for_,        ///< target in expression [if condition] [recursive]: body, otherwise
  set,         ///< target = expression
  set_block,   ///< target = filters applied to body
  macro,       ///< text ( parameters ): body
  call,        ///< expression, with body as caller ( parameters )
  filter,      ///< filters applied to body
  with,        ///< assignments, body
  generation,  ///< body, as it is
  refused,     ///< text: a statement that is understood and not carried out
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
  MarkedText data = {};  ///< of kind data
  Target target = {};
  bool is_recursive = false;
  bool takes_caller = false, takes_varargs = false, takes_kwargs = false;  ///< a macro that asks for these by name
  const Expression* expression = nullptr;
  std::vector<const Expression*> expressions = {};
  const Expression* condition = nullptr;
  std::vector<const Statement*> body = {};
  std::vector<const Statement*> otherwise = {};
  std::vector<Branch> branches = {};
  std::vector<Parameter> parameters = {};
  std::vector<const Expression*> filters = {};  ///< of kind filter, without children[0]
  std::vector<std::pair<Target, const Expression*>> assignments = {};
};

/// A parsed template. Owns its nodes flat, so that a deep tree needs no deep stack to go.
struct Tree {
  std::deque<Expression> expressions;
  std::deque<Statement> statements;
  std::vector<const Statement*> body;
};

}  // namespace contexture::jinja
