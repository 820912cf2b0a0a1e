#include "cli/static_flags.h"

#include <string>
#include <vector>

#include "base/log.h"
#include "cache/layout.h"

namespace contexture::cli {

void StaticFlags::add_to(CLI::App& command) {
  CLI::Option* const folder =
      command.add_option("--context-dir", directory, "runs the graphs that `compile` wrote to DIR");
  folder->option_text("DIR");
  std::vector<std::string> others = {"--model",  "--cache",   "--k-format", "--v-format",
                                     "--rotate", "--context", "--session",  "--trace"};
  for (const CacheLayout* layout : all_layouts()) {
    for (const LayoutOption& option : layout->options) others.push_back(option.flag());
  }
  for (const std::string& name : others) {
    if (CLI::Option* const other = command.get_option_no_throw(name)) folder->excludes(other);
  }
  const auto add = [&](const char* name, std::string& value, const char* text) {
    return command.add_option(name, value, text)->needs(folder);
  };
  add("--kv-updater", kv_updater, "--context-dir: how new K and V enter the fixed buffers")
      ->check(CLI::IsMember({"smart-mask", "shift-pointer"}))
      ->capture_default_str();
  add("--mode", mode, "--context-dir: which graphs run (default: all that there are)")
      ->check(CLI::IsMember({"kv", "hybrid", "prefill"}));
  add("--backend", backend, "--context-dir: what executes them, a name or a library's path")
      ->option_text("NAME")
      ->capture_default_str();
}

StaticLoadOptions StaticFlags::options(const std::string& tokenizer, int threads) const {
  StaticLoadOptions options = {.directory = directory,
                               .tokenizer_path = tokenizer,
                               .backend = backend,
                               .update = *kv_update_named(kv_updater),
                               .mode = {},
                               .threads = threads,
                               .log_level = 0};
  if (!mode.empty()) options.mode = graph_mode_named(mode);
  if (logs(LogLevel::debug)) {
    options.log_level = 2;
  } else if (logs(LogLevel::info)) {
    options.log_level = 1;
  }
  return options;
}

}  // namespace contexture::cli
