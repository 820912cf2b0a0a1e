#include "cli/command.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/shipped.h"
#include "cache/layout.h"
#include "tensor/kv_row.h"

namespace contexture::cli {
namespace {

template <class Number, class Parse>
CLI::Validator in_range(Number low, Number high, const std::string& name, Parse parse) {
  return CLI::Validator(
      [=](std::string& text) {
        size_t read = 0;
        try {
          const Number value = parse(text, &read);
          if (read == text.size() && value >= low && value <= high) return std::string();
        } catch (const std::exception&) {
        }
        return fmt::format("{} is no {} from {} to {}", text, name, low, high);
      },
      "");
}

/// What an option of a layout may be.
CLI::Validator allowed_values(const LayoutOption& option) {
  if (option.kind == LayoutOption::Kind::format) return CLI::IsMember(cache_formats());
  if (option.choices.empty()) return whole_number(option.low, option.high);
  std::vector<std::string> texts;
  for (const int64_t choice : option.choices) texts.push_back(option.text_of(choice));
  return CLI::IsMember(texts);
}

}  // namespace

void ModelFlags::add_to(CLI::App& command) {
  command
      .add_option("-m,--model", model,
                  "model: a GGUF file, a Hugging Face directory, a PyTorch checkpoint or its directory, or a llama2.c "
                  ".bin (default: the bundled model)")
      ->option_text("PATH");
  command.add_option("--tokenizer", tokenizer, "tokenizer, where it is neither in the model file nor beside it")
      ->option_text("PATH");
  command.add_flag("--json", json, "print one JSON object and nothing else on stdout");
  command.preparse_callback([this](size_t) { model = bundled_model(); });
}

void CacheFlags::add_to(CLI::App& command, bool of_many) {
  const std::vector<std::string_view> layouts = cache_layouts();
  command.add_option("--cache", layout, "how the context is held")
      ->check(CLI::IsMember(std::vector<std::string>(layouts.begin(), layouts.end())))
      ->capture_default_str();
  command.add_option("--k-format,--ctk", k_format, "format of K in the cache (also -ctk)")
      ->check(CLI::IsMember(cache_formats()))
      ->capture_default_str();
  command.add_option("--v-format,--ctv", v_format, "format of V in the cache (also -ctv)")
      ->check(CLI::IsMember(cache_formats()))
      ->capture_default_str();
  for (const CacheLayout* of : all_layouts()) {
    for (const LayoutOption& option : of->options) {
      if ((option.of_many && !of_many) || layout_options.contains(std::string(option.name))) continue;
      command.add_option(option.flag(), layout_options[std::string(option.name)], std::string(option.help))
          ->check(allowed_values(option))
          ->default_str(option.text_of(option.standard))
          ->expected(1);
    }
  }
  // Not bound to `rotate`: CLI11 would write false to it where neither flag is given.
  command.add_flag_function(
      "--rotate,!--no-rotate", [this](int64_t given) { rotate = given > 0; },
      "store K and V rotated by a Hadamard matrix: few bits then lose less (default: where q4_0 holds them and the "
      "head size is a power of two)");
  command
      .add_option("-c,--context", context,
                  "tokens of context; 0: what the model was made for (default: what the prompt and -n need)")
      ->check(whole_number(0, kManyTokens))
      ->option_text("N");
  command.add_option("-t,--threads", threads, "threads (default: physical cores)")
      ->check(whole_number(1, 1024))
      ->option_text("N");
}

std::vector<int64_t> CacheFlags::given(const LayoutOption& option) const {
  std::vector<int64_t> values;
  if (const auto texts = layout_options.find(std::string(option.name)); texts != layout_options.end()) {
    for (const std::string& text : texts->second) values.push_back(option.parse(text));
  }
  return values;
}

void CacheFlags::check_given(std::span<const std::string_view> layouts) const {
  for (const auto& [name, texts] : layout_options) {
    const auto has = [&option = name](std::string_view layout) {
      return layout_named(layout).option(option) != nullptr;
    };
    if (texts.empty() || std::ranges::any_of(layouts, has)) continue;
    std::vector<std::string_view> owners;
    std::string flag;
    for (const CacheLayout* owner : all_layouts()) {
      if (const LayoutOption* option = owner->option(name)) owners.push_back(owner->name), flag = option->flag();
    }
    fail("{} is of a {} cache, and this one is {}; leave it out, or give --cache {}", flag, fmt::join(owners, " or "),
         fmt::join(layouts, ", "), owners.front());
  }
}

RunOptions CacheFlags::options(const Metadata& model) const {
  RunOptions options;
  options.cache.layout = layout;
  options.cache.shape.k_format = *format_from_name(k_format);
  options.cache.shape.v_format = *format_from_name(v_format);
  if (context) options.cache.context = *context > 0 ? *context : read_config(model).context;
  const std::string_view layouts[] = {layout};
  check_given(layouts);
  for (const auto& [name, texts] : layout_options) {
    for (const std::string& text : texts) set_option(options.cache, name, text);
  }
  options.cache.rotate = rotate;
  options.threads = threads > 0 ? threads : physical_cores();
  return options;
}

std::vector<std::string> cache_formats() {
  std::vector<std::string> names;
  for (const Format format : kv_formats()) names.emplace_back(name(format));
  return names;
}

std::string bundled_model() {
  return shipped_model(CONTEXTURE_BUNDLED_MODEL);
}

std::string heldout_text() {
  return shipped_model("stories-1m.heldout.txt");
}

std::string needle_model() {
  return shipped_model("needle.gguf");
}

const std::string& path_to_write(const std::string& path) {
  if (!is_mapped(path)) return path;
  fail("{} is a file that this command reads; give another name to the file to write", printable(path, 400));
}

void print_json(const Json& object) {
  std::cout << object.dump() << std::endl;
}

std::string valid_utf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

void warn_beyond_context(size_t context, size_t made_for) {
  if (context <= made_for) return;
  log_warning("the model was made for {} tokens of context; past them its text may fall apart", made_for);
}

std::string human_bytes(size_t bytes) {
  constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(units)) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.3g} {}", value, units[unit]);
}

std::string read_text(const std::string& path) {
  const int descriptor = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("cannot open {}: {}; check the path", printable(path, 400), std::strerror(errno));
  std::string text;
  while (read_some(descriptor, text)) {
  }
  const int error = errno;
  if (descriptor != STDIN_FILENO) close(descriptor);
  if (error != 0) fail("cannot read {}: {}", name_of_input(path), std::strerror(error));
  return text;
}

std::string name_of_input(const std::string& path) {
  return path == "-" ? "stdin" : printable(path, 400);
}

CLI::Validator whole_number(int64_t low, int64_t high) {
  return in_range(low, high, "whole number",
                  [](const std::string& text, size_t* read) { return std::stoll(text, read); });
}

CLI::Validator number(double low, double high) {
  return in_range(low, high, "number", [](const std::string& text, size_t* read) { return std::stod(text, read); });
}

}  // namespace contexture::cli
