#include "cli/command.h"

namespace contexture::cli {

void add_ring(CLI::App& app) {
  CLI::App* ring =
      app.add_subcommand("ring", "context parallelism: a walk-through, what a cluster would do, and what hides");
  ring->require_subcommand(1);
  add_ring_demo(*ring);
  add_ring_plan(*ring);
  add_ring_overlap(*ring);
}

}  // namespace contexture::cli
