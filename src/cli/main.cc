#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <new>

#include "base/error.h"
#include "base/log.h"
#include "base/processor.h"
#include "cli/command.h"
#include "cli/other_spellings.h"

namespace contexture::cli {
namespace {

int run_program(int argc, char** argv) {
  CLI::App app("Contexture runs language models, and lets you choose how their context is held.", "contexture");
  app.set_version_flag("--version", "contexture " CONTEXTURE_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  int log_level = 0, verbosity = 0;
  app.add_option("--log-level", log_level, "0 quiet, 1 info, 2 debug")->check(CLI::Range(0, 2));
  app.add_flag("-v", verbosity, "info on stderr; -vv debug");
  app.parse_complete_callback([&] { set_log_level(log_level_of(std::max(log_level, verbosity))); });
  add_run(app);
  add_chat(app);
  add_completion(app);
  add_tokenize(app);
  add_detokenize(app);
  add_logits(app);
  add_info(app);
  add_plan(app);
  add_convert(app);
  add_compile(app);
  add_bench(app);
  add_verify(app);
  add_eval(app);
  add_ring(app);
  try {
    std::vector<std::string> arguments = with_known_spellings(app, {argv + 1, argv + argc});
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
    app.parse(std::move(arguments));
  } catch (const CLI::ExtrasError&) {  // whose own message has them last first
    tell("not expected: {}\nRun with --help for more information.\n", fmt::join(app.remaining(/*recurse=*/true), " "));
    return 2;
  } catch (const CLI::ParseError& e) {
    const int status = app.exit(e, std::cout, std::cerr);
    return status == 0 ? 0 : 2;
  }
  return 0;
}

}  // namespace
}  // namespace contexture::cli

int main(int argc, char** argv) {
  using namespace contexture;
  cli::prepare_process();
  int status = 1;
  bool is_lost = false;
  try {
    check_processor();
    status = cli::run_program(argc, argv);
  } catch (const std::bad_alloc&) {
    tell("error: out of memory; use a smaller model or a shorter context (contexture plan)\n");
  } catch (const cli::LostWork& e) {
    tell("error: {}\n", e.what());
    is_lost = true;
  } catch (const std::exception& e) {
    tell("error: {}\n", e.what());
  }
  if (cli::interrupted() && !is_lost) status = cli::interrupted_status();
  std::cout.flush();
  if ((!std::cout || std::fflush(stdout) != 0) && status == 0) {
    tell("error: cannot write to stdout; is the disk full?\n");
    return 1;
  }
  return status;
}
