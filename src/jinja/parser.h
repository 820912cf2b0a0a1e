#pragma once

#include <string_view>

#include "jinja/tree.h"

namespace contexture::jinja {

/// Throws SyntaxFault (lexer.h): also for what Jinja2 knows and chat templates do not use (import, include, extends,
/// block, recursive loops), and for nesting deeper than 200 levels.
Tree parse(std::string_view source);

}  // namespace contexture::jinja
