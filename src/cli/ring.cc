#include "cli/command.h"

namespace contexture::cli {

void add_ring(CLI::App& app) {
  CLI::App* ring = app.add_subcommand("ring", "context parallelism: a walk-through, and what a cluster would do");
  ring->require_subcommand(1);
  add_ring_demo(*ring);
  add_ring_plan(*ring);
}

}  // namespace contexture::cli
