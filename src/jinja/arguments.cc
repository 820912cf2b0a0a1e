#include <algorithm>

#include "jinja/builtins.h"

namespace contexture::jinja {
namespace {

/// What a built-in takes, read from its line in the table.
struct Parameters {
  struct One {
    std::string_view name;
    bool is_needed;
  };
  std::vector<One> all;
  bool takes_names = true, takes_more = false, takes_more_names = false;

  explicit Parameters(std::string_view line) {
    for (size_t at = 0; at < line.size();) {
      const size_t end = std::min(line.find(' ', at), line.size());
      add(line.substr(at, end - at));
      at = end + 1;
    }
  }

  bool has(std::string_view name) const {
    return std::any_of(all.begin(), all.end(), [&](const One& one) { return one.name == name; });
  }

 private:
  void add(std::string_view word) {
    if (word == "/") {
      takes_names = false;
    } else if (word == "*") {
      takes_more = true;
    } else if (word == "**") {
      takes_more_names = true;
    } else if (word.ends_with('?')) {
      all.push_back({word.substr(0, word.size() - 1), false});
    } else {
      all.push_back({word, true});
    }
  }
};

}  // namespace

void check_arguments(const NamedBuiltin& builtin, const Arguments& arguments) {
  const std::string_view name = builtin.first;
  const Parameters parameters(builtin.second.parameters);
  const size_t most = parameters.all.size(), given = arguments.positional.size();
  if (given > most && !parameters.takes_more) raise("{} takes {} arguments at most and not {}", name, most, given);
  for (size_t i = 0; i < arguments.named.size(); ++i) {
    const std::string_view argument = arguments.named[i].first;
    const bool is_known = parameters.takes_names && parameters.has(argument);
    if (!is_known && !parameters.takes_more_names) raise("{} takes no argument '{}'", name, argument);
  }
  for (size_t i = 0; i < most; ++i) {
    const std::string_view parameter = parameters.all[i].name;
    const bool is_needed = parameters.all[i].is_needed;
    const auto is_it = [&](const auto& named) { return named.first == parameter; };
    const bool is_named = parameters.takes_names && std::any_of(arguments.named.begin(), arguments.named.end(), is_it);
    if (i < given && is_named) raise("{} has two values for the argument '{}'", name, parameter);
    if (is_needed && i >= given && !is_named) raise("{} needs the argument '{}'", name, parameter);
  }
}

const String& string_argument(Args arguments, size_t place, std::string_view name) {
  const Value& value = arguments.need(place, name);
  if (!value.is(Kind::string)) raise("the argument '{}' must be a string and not {}", name, kind_name(value));
  return value.string();
}

int64_t whole_argument(Args arguments, size_t place, std::string_view name, int64_t fallback) {
  const Value* value = arguments.find(place, name);
  if (!value) return fallback;
  if (!value->is_whole()) raise("the argument '{}' must be a whole number and not {}", name, kind_name(*value));
  return value->whole();
}

bool flag_argument(Args arguments, size_t place, std::string_view name, bool fallback) {
  const Value* value = arguments.find(place, name);
  return value ? truthy(*value) : fallback;
}

}  // namespace contexture::jinja
