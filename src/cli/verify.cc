#include "cli/command.h"

namespace contexture::cli {

/// Each of its subcommands is a file.
void add_verify(CLI::App& app) {
  CLI::App* command = app.add_subcommand("verify", "prove that every way to hold the context gives the same answer");
  command->require_subcommand(1);
  add_verify_layouts(*command);
  add_verify_trace(*command);
}

}  // namespace contexture::cli
