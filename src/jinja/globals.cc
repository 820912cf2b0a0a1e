#include "jinja/builtins.h"

namespace contexture::jinja {
namespace {

/// The sandbox's longest.
constexpr size_t kLongestRange = 100000;

Value range(In in, const Value&, Args a) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t count = a.positional.size();
  for (size_t i = 0; i < count; ++i) bounds[count == 1 ? 1 : i] = whole_argument(a, i, "start", 0);
  const Range made{bounds[0], bounds[1], bounds[2]};
  if (made.step == 0) raise("range's step is zero");
  if (made.size() > kLongestRange) raise("a range of more than {} numbers", kLongestRange);
  return in.heap().range(made);
}

/// Python's dict(a, b=c).
std::vector<std::pair<Value, Value>> filled(In in, Args a) {
  std::vector<std::pair<Value, Value>> entries;
  if (!a.positional.empty()) {
    const Value& from = a.positional[0];
    Iterator pairs(in.heap(), from.is(Kind::dict) ? items_view_of(in.heap(), from) : from);
    for (Value pair; pairs.next(pair);) {
      const std::vector<Value> parts = items_of(in.heap(), pair);
      if (parts.size() != 2) raise("a dictionary is made of pairs of a key and a value");
      in.heap().set(entries, parts[0], parts[1]);
    }
  }
  for (const auto& [name, item] : a.named) in.heap().set(entries, in.heap().string(name), item);
  return entries;
}

Value name_space(In in, const Value&, Args a) {
  const Value made = in.heap().name_space();
  made.space->entries = filled(in, a);
  in.heap().account().take_memory(made.space->entries.size() * 2 * sizeof(Value));
  return made;
}

Value dict(In in, const Value&, Args a) {
  return in.heap().dict(filled(in, a));
}

Value cycler(In in, const Value&, Args a) {
  if (a.positional.empty()) raise("cycler() has nothing to choose from");
  return in.heap().cycler(a.positional, Kind::cycler);
}

/// Nothing the first time it is called, then what separates.
Value joiner(In in, const Value&, Args a) {
  return in.heap().cycler({in.heap().string(""), a.get(0, "sep", in.heap().string(", "))}, Kind::joiner);
}

Value lipsum(In, const Value&, Args) {
  raise("'lipsum' gives another text every time, and is not carried out here");
}

Value raise_exception(In in, const Value&, Args a) {
  raise("{}", string_of(in.heap(), a.need(0, "message")).text());
}

/// One conversion at a time: a format with a width could ask for gigabytes.
Value strftime_now(In in, const Value&, Args a) {
  const String& given = string_argument(a, 0, "format");
  const std::string& format = given.bytes();
  const std::time_t now = in.now();
  std::tm parts = {};
  localtime_r(&now, &parts);
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    std::string conversion = "%";
    if (format[i + 1] == '-' && i + 2 < format.size()) conversion += format[++i];  // GNU's "without padding"
    conversion += format[++i];
    if (std::string_view("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%").find(conversion.back()) == std::string::npos) {
      out += conversion;
      continue;
    }
    char buffer[128];
    in.heap().spend(sizeof(buffer));
    out.append(buffer, std::strftime(buffer, sizeof(buffer), conversion.c_str(), &parts));
  }
  return in.heap().string(out, !given.content().empty());
}

}  // namespace

const NamedBuiltin* find_global(std::string_view name) {
  static const Table table = {
      {"range", {range, "/ start stop? step?"}},
      {"namespace", {name_space, "/ values? **"}},
      {"dict", {dict, "/ values? **"}},
      {"cycler", {cycler, "*"}},
      {"joiner", {joiner, "sep?"}},
      {"lipsum", {lipsum, "* **"}},
      {"raise_exception", {raise_exception, "message"}},
      {"strftime_now", {strftime_now, "format"}},
  };
  return find_in(table, name);
}

}  // namespace contexture::jinja
