#pragma once

#include <string_view>

#include "jinja/builtins.h"

/// Values written after a pattern, with everything that Python's patterns can say.
namespace contexture::jinja {

/// format(value, specification): "[[fill]align][sign][#][0][width][grouping][.precision][type]".
void write_formatted(In in, Writer& out, const Value& value, const MarkedText& specification);
/// pattern % argument.
Value percent_format(In in, const String& pattern, const Value& argument);
/// pattern.format(...): fields "name.attribute[index]!conversion:specification".
Value brace_format(In in, const String& pattern, Args arguments);

/// A number's digits after a specification's letter, without its sign: "d b o x X e E f F g G %", or 0 for repr's.
std::string digits_of(double value, char type, int precision, bool alternate);
std::string digits_of(uint64_t value, char type);

}  // namespace contexture::jinja
