#include "base/json.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace contexture {

namespace {

template <class json>
json parse(std::string_view text, const std::string& name, std::string_view remedy) {
  constexpr int deepest = 64;
  constexpr size_t most_values =
      4'000'000;  // tokenizers of 260,000 pieces have 2.5 million; a value takes some 50 bytes
  size_t values = 0;
  const auto watch_depth = [&](int depth, typename json::parse_event_t, json&) {
    if (depth > deepest)
      fail("{}: JSON nested deeper than {} levels, which none is that this program reads; {}", printable(name, 400),
           deepest, remedy);
    if (++values > most_values) {
      fail("{}: more values than any JSON has that this program reads; {}", printable(name, 400), remedy);
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch_depth);
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: not JSON from byte {} on; {}", printable(name, 400), error.byte, remedy);
  } catch (const nlohmann::json::out_of_range&) {
    fail("{}: a number in this JSON is too large; {}", printable(name, 400), remedy);
  }
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& name, std::string_view remedy) {
  return parse<nlohmann::json>(text, name, remedy);
}

nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& name, std::string_view remedy) {
  return parse<nlohmann::ordered_json>(text, name, remedy);
}

}  // namespace contexture
