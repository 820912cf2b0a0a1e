#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "jinja/builtins.h"
#include "jinja/paths.h"
#include "jinja/strings.h"

/// Filters of numbers and of any value, and the list of all.
namespace contexture::jinja {

Value at_path(In in, Value value, const Value& path, const Value& fallback) {
  const auto step = [&](const Value& key) {
    value = in.item(value, key);
    if (!fallback.is(Kind::none) && value.is(Kind::undefined)) value = fallback;
  };
  if (path.is(Kind::none)) return value;
  if (path.is_whole()) {
    step(path);
    return value;
  }
  if (!path.is(Kind::string)) raise("an attribute's name must be a string and not {}", kind_name(path));
  const std::string& text = path.text();
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('.', at), text.size());
    const std::string part = text.substr(at, end - at);
    const bool is_number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    step(is_number ? Value::of(static_cast<int64_t>(std::stoll(part))) : in.heap().string(part));
    at = end + 1;
  }
  return value;
}

namespace {

Value length(In, const Value& input, Args) {
  switch (input.kind) {
    case Kind::string:
      return Value::of(count_characters(input.text()));
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
      return Value::of(input.items().size());
    case Kind::dict:
      return Value::of(input.dict().entries.size());
    case Kind::range:
      return Value::of(input.range().size());
    case Kind::loop:
      return Value::of(input.loop->size());
    case Kind::undefined:
      return Value::of(int64_t{0});
    default:
      raise("{} has no length", kind_name(input));
  }
}

Value default_filter(In, const Value& input, Args a) {
  const bool is_missing = input.is(Kind::undefined) || (flag_argument(a, 1, "boolean", false) && !truthy(input));
  return is_missing ? a.get(0, "default_value", Value::literal("")) : input;
}

Value tojson(In in, const Value& input, Args a) {
  return json_of(in.heap(), input,
                 {.ensure_ascii = flag_argument(a, 0, "ensure_ascii", false),
                  .indent = a.get(1, "indent", Value::none()),
                  .separators = a.get(2, "separators", Value::none()),
                  .sort_keys = flag_argument(a, 3, "sort_keys", false)});
}

Value first(In in, const Value& input, Args) {
  Value item;
  return Iterator(in.heap(), input).next(item) ? item : Value();
}

Value last(In in, const Value& input, Args) {
  if (input.is(Kind::generator)) raise("last cannot look to the end of a generator; make it a list first (|list)");
  const std::vector<Value> items = items_of(in.heap(), input);
  return items.empty() ? Value() : items.back();
}

Value list(In in, const Value& input, Args) {
  return in.heap().list(items_of(in.heap(), input));
}

Value items(In in, const Value& input, Args) {
  if (!input.is(Kind::undefined) && !input.is(Kind::dict)) raise("{} has no items", kind_name(input));
  const Value pairs = input.is(Kind::dict) ? items_view_of(in.heap(), input) : input;
  return in.heap().generator(
      [iterator = Iterator(in.heap(), pairs)](Value& item) mutable { return iterator.next(item); });
}

/// Jinja2's looks for no entries of dictionaries.
Value attr(In in, const Value& input, Args a) {
  string_argument(a, 0, "name");
  const Value& name = a.need(0, "name");
  if (input.is(Kind::dict) && !find_method(input, name.text())) return Value::undefined(name);
  return in.attribute(input, name);
}

/// As Python's float() and int() read a text: white space around it, and "_" between digits.
std::string number_text(std::string_view text) {
  std::string digits;
  text = strip(text);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_between = i > 0 && i + 1 < text.size() && std::isdigit(text[i - 1]) && std::isdigit(text[i + 1]);
    if (text[i] != '_' || !is_between) digits += text[i];
  }
  return digits;
}

bool read_float(std::string_view text, double& value) {
  const std::string copy = number_text(text);
  if (copy.empty() || copy.find_first_of("xXpP(_ ") != copy.npos) return false;
  char* end = nullptr;
  value = std::strtod(copy.c_str(), &end);
  return end == copy.c_str() + copy.size();
}

bool read_whole(std::string_view text, int base, int64_t& value) {
  std::string copy = number_text(text);
  const size_t sign = copy.starts_with('-') || copy.starts_with('+') ? 1 : 0;
  const std::string_view prefix = std::string_view(copy).substr(sign, 2);
  if (base == 2 || base == 8 || base == 16) {
    const char letter = base == 2 ? 'b' : base == 8 ? 'o' : 'x';
    if (prefix.size() == 2 && prefix[0] == '0' && lower(prefix[1]) == letter) copy.erase(sign, 2);
  } else if (prefix.size() == 2 && (prefix[1] == 'x' || prefix[1] == 'X')) {
    return false;
  }
  if (copy.size() == sign || !std::isalnum(static_cast<unsigned char>(copy[sign]))) return false;
  char* end = nullptr;
  errno = 0;
  value = std::strtoll(copy.c_str(), &end, base);
  if (end != copy.c_str() + copy.size()) return false;
  if (errno != 0) raise("a number grows beyond 64 bits");
  return true;
}

Value float_filter(In, const Value& input, Args a) {
  double value = 0;
  if (input.is(Kind::undefined)) raise_undefined(input);
  if (input.is_number()) return Value::of(input.number());
  if (input.is(Kind::string) && read_float(input.text(), value)) return Value::of(value);
  return a.get(0, "default", Value::of(0.0));
}

Value int_filter(In, const Value& input, Args a) {
  const int64_t base = whole_argument(a, 1, "base", 10);
  if (base < 2 || base > 36) raise("numbers of base {}", base);
  if (input.is(Kind::undefined)) raise_undefined(input);
  if (input.is_whole()) return Value::of(input.whole());
  const Value fallback = a.get(0, "default", Value::of(int64_t{0}));
  int64_t whole = 0;
  double value = 0;
  if (input.is(Kind::string)) {
    if (read_whole(input.text(), static_cast<int>(base), whole)) return Value::of(whole);
    if (!read_float(input.text(), value) || !std::isfinite(value)) return fallback;
  } else if (input.is(Kind::floating)) {
    value = input.floating;
    if (std::isnan(value)) return fallback;
  } else {
    return fallback;
  }
  if (!(std::abs(value) < 9e18)) raise("a number grows beyond 64 bits");
  return Value::of(static_cast<int64_t>(value));
}

Value abs_filter(In in, const Value& input, Args) {
  if (input.is(Kind::undefined)) raise_undefined(input);
  if (input.is(Kind::floating)) return Value::of(std::abs(input.floating));
  if (!input.is_whole()) raise("{} has no absolute value", kind_name(input));
  return input.whole() < 0 ? arithmetic(in, "-", Value::of(int64_t{0}), input) : Value::of(input.whole());
}

/// To tens, hundreds, ...; what lies in the middle goes to the even one.
Value rounded_to_tens(const Value& value, int64_t places) {
  if (places > 18) return value.is_whole() ? Value::of(int64_t{0}) : Value::of(0.0);
  const double scale = std::pow(10.0, static_cast<double>(places));
  if (!value.is_whole()) return Value::of(std::nearbyint(value.number() / scale) * scale);
  const int64_t step = static_cast<int64_t>(scale), whole = value.whole(), rest = ((whole % step) + step) % step;
  const int64_t below = whole - rest;
  const bool goes_up = rest > step - rest || (rest == step - rest && (below / step) % 2 != 0);
  if (goes_up && below > INT64_MAX - step) raise("a number grows beyond 64 bits");
  return Value::of(goes_up ? below + step : below);
}

Value round_filter(In in, const Value& input, Args a) {
  const int64_t precision = whole_argument(a, 0, "precision", 0);
  const Value method = a.get(1, "method", in.heap().string("common"));
  const std::string how = method.is(Kind::string) ? method.text() : "";
  if (how != "common" && how != "ceil" && how != "floor") raise("round's method is 'common', 'ceil' or 'floor'");
  if (input.is(Kind::undefined)) raise_undefined(input);
  if (!input.is_number()) raise("{} cannot be rounded", kind_name(input));
  if (precision < -300 || precision > 300) raise("rounding to {} places", precision);
  const double value = input.number();
  if (how != "common") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    if (!std::isfinite(value * scale)) raise("a number grows too large to be rounded");
    return Value::of((how == "ceil" ? std::ceil(value * scale) : std::floor(value * scale)) / scale);
  }
  if (precision < 0) return rounded_to_tens(input, -precision);
  if (input.is_whole()) return Value::of(input.whole());
  if (!std::isfinite(value)) return input;
  return Value::of(std::strtod(fmt::format("{:.{}f}", value, precision).c_str(), nullptr));
}

Value filesizeformat(In in, const Value& input, Args a) {
  constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
  constexpr const char* kBinaryUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
  const bool binary = flag_argument(a, 0, "binary", false);
  double bytes = 0;
  if (input.is_number()) {
    bytes = input.number();
  } else if (!input.is(Kind::string) || !read_float(input.text(), bytes)) {
    raise("a file's size must be a number and not {}", kind_name(input));
  }
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return in.heap().string("1 Byte");
  if (!std::isfinite(bytes)) raise("a file's size of {}", bytes);
  if (bytes < base) return in.heap().string(fmt::format("{} Bytes", static_cast<int64_t>(std::max(bytes, -9e18))));
  double unit = base * base;
  size_t i = 0;
  for (; i < 7 && bytes >= unit; ++i) unit *= base;
  return in.heap().string(fmt::format("{:.1f} {}", base * bytes / unit, (binary ? kBinaryUnits : kUnits)[i]));
}

/// What gives another answer every time, or what no chat is written with.
template <const char* Why>
Value refused(In, const Value&, Args) {
  raise("{}", Why);
}
constexpr char kRandom[] = "the filter 'random' gives another answer every time, and is not carried out here";
constexpr char kUrlize[] = "the filter 'urlize' is not carried out here";
constexpr char kWordwrap[] = "the filter 'wordwrap' is not carried out here";
constexpr char kPprint[] = "the filter 'pprint' is not carried out here";

const Table& other_filters() {
  static const Table table = {
      {"abs", {abs_filter, ""}},
      {"attr", {attr, "name"}},
      {"count", {length, ""}},
      {"d", {default_filter, "default_value? boolean?"}},
      {"default", {default_filter, "default_value? boolean?"}},
      {"filesizeformat", {filesizeformat, "binary?"}},
      {"first", {first, ""}},
      {"float", {float_filter, "default?"}},
      {"int", {int_filter, "default? base?"}},
      {"items", {items, ""}},
      {"last", {last, ""}},
      {"length", {length, ""}},
      {"list", {list, ""}},
      {"pprint", {refused<kPprint>, "* **"}},
      {"random", {refused<kRandom>, "* **"}},
      {"round", {round_filter, "precision? method?"}},
      {"tojson", {tojson, "ensure_ascii? indent? separators? sort_keys?"}},
      {"urlize", {refused<kUrlize>, "* **"}},
      {"wordwrap", {refused<kWordwrap>, "* **"}},
  };
  return table;
}

}  // namespace

const NamedBuiltin* find_filter(std::string_view name) {
  for (const auto* table : {&other_filters(), &text_filters(), &list_filters(), &markup_filters()}) {
    if (const NamedBuiltin* found = find_in(*table, name)) return found;
  }
  return nullptr;
}

}  // namespace contexture::jinja
