#pragma once

#include <string_view>

#include "jinja/interpreter.h"

/// What templates find without defining it. Each is a table of functions in a file of its own; null where the name is
/// not there.
namespace contexture::jinja {

using Test = bool (*)(Interpreter&, const Value&, const Arguments&);

Builtin find_filter(std::string_view name);
Test find_test(std::string_view name);
/// Methods of strings, lists, dictionaries and loops.
Builtin find_method(Kind kind, std::string_view name);
Builtin find_global(std::string_view name);

}  // namespace contexture::jinja
