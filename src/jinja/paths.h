#pragma once

#include "jinja/builtins.h"

namespace contexture::jinja {

/// "a.b.0": what it leads to from a value, which an attribute of none leaves as it is; `fallback`, where it is not
/// none, stands for every undefined step.
Value at_path(In in, Value value, const Value& path, const Value& fallback = Value::none());

}  // namespace contexture::jinja
