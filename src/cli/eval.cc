#include "cli/command.h"

namespace contexture::cli {

/// Each of its subcommands is a file. Without one it is `eval report`.
void add_eval(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "eval", "measure what a cache layout or format does to a model's answers; without a subcommand: report");
  command->require_subcommand(0, 1);
  add_eval_perplexity(*command);
  add_eval_kl(*command);
  add_eval_needle(*command);
  add_eval_report(*command);
}

}  // namespace contexture::cli
