#include "cli/command.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/mapped_file.h"
#include "cache/cache.h"
#include "kernels/attention.h"

namespace contexture::cli {
namespace {

std::atomic<bool> interrupt_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set from a signal handler");

void on_interrupt(int) {
  interrupt_flag = true;
  std::signal(SIGINT, SIG_DFL);  // a second Ctrl-C ends the program at once
}

std::vector<std::string> cache_formats() {
  std::vector<std::string> names;
  for (const FormatInfo& f : all_formats()) {
    if (attention_reads(f.format)) names.emplace_back(f.name);
  }
  return names;
}

}  // namespace

void ModelFlags::add_to(CLI::App& command) {
  command.add_option("-m,--model", model, "model: a GGUF file, or a llama2.c .bin (default: the bundled model)")
      ->option_text("PATH");
  command.add_option("--tokenizer", tokenizer, "tokenizer, where it is neither in the model file nor beside it")
      ->option_text("PATH");
  command.add_flag("--json", json, "print one JSON object and nothing else on stdout");
  command.preparse_callback([this](size_t) { model = bundled_model(); });
}

void CacheFlags::add_to(CLI::App& command) {
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
  command.add_option("-c,--context", context, "tokens of context (default: what the prompt and -n need)")
      ->option_text("N");
  command.add_option("-t,--threads", threads, "threads (default: physical cores)")
      ->check(CLI::Range(1, 1024))
      ->option_text("N");
}

RunOptions CacheFlags::options() const {
  RunOptions options;
  options.cache.layout = layout;
  options.cache.shape.k_format = *format_from_name(k_format);
  options.cache.shape.v_format = *format_from_name(v_format);
  options.cache.context = context;
  options.threads = threads > 0 ? threads : physical_cores();
  return options;
}

std::string bundled_model() {
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const std::filesystem::path beside = program.parent_path().parent_path() / "models" / CONTEXTURE_BUNDLED_MODEL;
  if (std::filesystem::exists(beside, ignored)) return beside.string();
  return std::string(CONTEXTURE_MODELS_DIR) + "/" + CONTEXTURE_BUNDLED_MODEL;
}

void print_json(const Json& object) {
  std::cout << object.dump() << std::endl;
}

std::string valid_utf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
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

std::string read_stdin() {
  std::string text(std::istreambuf_iterator<char>(std::cin), {});
  if (std::cin.bad()) fail("cannot read stdin");
  return text;
}

std::string read_file(const std::string& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

const std::atomic<bool>& interrupted() {
  static const bool installed = [] {
    std::signal(SIGINT, on_interrupt);
    return true;
  }();
  (void)installed;
  return interrupt_flag;
}

}  // namespace contexture::cli
