#include "cli/trace_flags.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"

namespace contexture::cli {
namespace {

constexpr size_t kWithoutEnd = std::numeric_limits<size_t>::max();

/// A number at the front of `text`, which loses it.
std::optional<size_t> take_number(std::string_view& text) {
  size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

CLI::Validator number_list() {
  return CLI::Validator(
      [](std::string& text) {
        return NumberList::parse(text) ? std::string() : fmt::format("{} is no list like 0,3-5,9-", text);
      },
      "");
}

}  // namespace

std::optional<NumberList> NumberList::parse(const std::string& text) {
  NumberList list;
  std::string_view rest = text;
  do {
    const std::optional<size_t> first = take_number(rest);
    if (!first) return std::nullopt;
    size_t last = *first;
    if (rest.starts_with('-')) {
      rest.remove_prefix(1);
      last = rest.empty() || rest[0] == ',' ? kWithoutEnd : take_number(rest).value_or(0);
    }
    if (last < *first) return std::nullopt;
    list.ranges_.emplace_back(*first, last);
    if (rest.empty()) return list;
  } while (rest[0] == ',' && (rest.remove_prefix(1), true));
  return std::nullopt;
}

bool NumberList::has(size_t number) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const auto& range) { return number >= range.first && number <= range.second; });
}

size_t NumberList::largest() const {
  size_t largest = 0;
  for (const auto& [first, last] : ranges_) largest = std::max(largest, last == kWithoutEnd ? first : last);
  return largest;
}

void TraceFlags::add_to(CLI::App& command) {
  CLI::Option* trace = command.add_option("--trace", file,
                                          "save q, K, V and output of every attention, for verify trace: each step's "
                                          "part holds the K and V of all tokens before it");
  trace->option_text("FILE.gguf");
  command.add_option("--trace-layers", layers, "layers to trace, from 0")
      ->check(number_list())
      ->option_text("LIST [0-]")
      ->needs(trace);
  command.add_option("--trace-steps", steps, "passes of the model to trace: chunks of the prompt, then tokens")
      ->check(number_list())
      ->option_text("LIST, as 0,2-4,9- [0-]")
      ->needs(trace);
}

std::unique_ptr<TraceWriter> TraceFlags::open(const std::string& model, size_t model_layers) const {
  if (file.empty()) return nullptr;
  const NumberList of_layers = NumberList::parse(layers).value(), of_steps = NumberList::parse(steps).value();
  if (of_layers.largest() >= model_layers) {
    fail("--trace-layers {}: the model has layers 0 to {}; choose among them", layers, model_layers - 1);
  }
  return std::make_unique<TraceWriter>(
      file, model, [of_layers](size_t layer) { return of_layers.has(layer); },
      [of_steps](size_t step) { return of_steps.has(step); });
}

}  // namespace contexture::cli
