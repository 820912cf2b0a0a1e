#pragma once

#include <string_view>

#include "jinja/tree.h"

namespace contexture::jinja {

/// Throws SyntaxFault (lexer.h): also for nesting deeper than 200 levels, and for more than 64 arguments or parameters
/// of a call. What Jinja2 knows and there is no use for (import, include, extends, block, autoescape) parses, and is
/// refused where it is reached.
Tree parse(std::string_view source);

}  // namespace contexture::jinja
