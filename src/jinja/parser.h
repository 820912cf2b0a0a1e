#pragma once

#include <string_view>

#include "jinja/tree.h"

namespace contexture::jinja {

/// Throws SyntaxFault (lexer.h): also for what Jinja2 knows and chat templates do not use (import, include, extends,
/// block, recursive loops), for nesting deeper than 200 levels, and for more than 64 arguments or parameters of a call.
Tree parse(std::string_view source);

}  // namespace contexture::jinja
