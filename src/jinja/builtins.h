#pragma once

#include <string_view>

#include "jinja/interpreter.h"

/// What templates find without defining it. Each is a table of functions in a file of its own; null where the name is
/// not there.
namespace contexture::jinja {

using In = Interpreter&;
using Args = const Arguments&;

const NamedBuiltin* find_filter(std::string_view name);
const NamedBuiltin* find_test(std::string_view name);
/// Methods of strings, lists, dictionaries and loops.
const NamedBuiltin* find_method(const Value& object, std::string_view name);
const NamedBuiltin* find_global(std::string_view name);

inline const NamedBuiltin* find_in(const Table& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : &*found;
}

// Filters by what they work on, and the methods of strings.
const Table& text_filters();
const Table& list_filters();
const Table& markup_filters();
const Table& string_methods();

/// A dictionary's items().
Value items_view_of(Heap& heap, const Value& dict);

/// Raises a Fault where a built-in does not take these arguments: what is not known is refused by its name.
void check_arguments(const NamedBuiltin& builtin, const Arguments& arguments);

// Arguments of one kind. A Fault where they are of another.
const String& string_argument(Args arguments, size_t place, std::string_view name);
int64_t whole_argument(Args arguments, size_t place, std::string_view name, int64_t fallback);
bool flag_argument(Args arguments, size_t place, std::string_view name, bool fallback);

}  // namespace contexture::jinja
