#include <map>

#include "jinja/builtins.h"
#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

Value range(Interpreter& in, Value, const Arguments& arguments) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t count = arguments.positional.size();
  if (count < 1 || count > 3 || !arguments.named.empty()) raise("range takes one to three numbers");
  for (size_t i = 0; i < count; ++i) {
    if (!arguments.positional[i].is_whole()) raise("range needs whole numbers");
    bounds[count == 1 ? 1 : i] = arguments.positional[i].whole();
  }
  const auto [start, stop, step] = bounds;
  if (step == 0) raise("range's step is zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    in.heap().spend(16);
    items.push_back(Value::of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return in.heap().list(std::move(items));
}

Value filled(Interpreter& in, Kind kind, const Arguments& arguments) {
  const Value value = in.heap().dict(kind);
  for (const Value& from : arguments.positional) {
    if (!from.is(Kind::dict)) raise("it is filled from a dictionary and not {}", kind_name(from));
    const std::vector<std::pair<Value, Value>> entries = from.dict->entries;
    for (const auto& [key, item] : entries) in.heap().set(*value.dict, key, item);
  }
  for (const auto& [name, item] : arguments.named) {
    in.heap().set(*value.dict, in.heap().string(std::string(name)), item);
  }
  return value;
}

Value name_space(Interpreter& in, Value, const Arguments& arguments) {
  return filled(in, Kind::name_space, arguments);
}
Value dict(Interpreter& in, Value, const Arguments& arguments) {
  return filled(in, Kind::dict, arguments);
}

Value raise_exception(Interpreter& in, Value, const Arguments& arguments) {
  raise("{}", text_of(in.heap(), arguments.need(0, "message")));
}

/// One conversion at a time: a format with a width could ask for gigabytes.
Value strftime_now(Interpreter& in, Value, const Arguments& arguments) {
  const std::string format = text_of(in.heap(), arguments.need(0, "format"));
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
  return in.heap().string(std::move(out));
}

}  // namespace

Builtin find_global(std::string_view name) {
  static const std::map<std::string_view, Builtin> table = {
      {"range", range},
      {"namespace", name_space},
      {"dict", dict},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
  };
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace contexture::jinja
