#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>

#include "backends/ring/ring_forward.h"
#include "cli/command.h"

namespace contexture::cli {

/// Flags of subcommands that run over ranks.
struct RingFlags {
  bool ring = false;
  int local_ranks = 0;
  std::string mode = "auto";
  double flops = RingChoice().flops, bandwidth = RingChoice().bandwidth;  // 0: measured
  int patience = 600;                                                     // seconds

  void add_to(CLI::App& command);
  /// Whether it runs over ranks. Throws Error where something is given too that goes on one machine only.
  struct Other {
    const char* flag;
    bool given;
  };
  bool given(std::initializer_list<Other> others = {}) const;
  RingChoice choice() const;
  /// Threads of each rank, where nobody asked for a number.
  int threads_of_rank(int asked) const;
  /// Runs `prepare` once, and then `body` once for every rank of this process, at once: all ranks with --local-ranks,
  /// else the one that mpirun started this process for. Where all ranks fail alike, one speaks.
  void run(const std::function<void()>& prepare, const std::function<void(Communicator&)>& body) const;
};

/// What each rank holds and sent, as JSON and for people.
Json ring_json(const std::vector<RingReport>& reports);
void print_ring(const std::vector<RingReport>& reports);

}  // namespace contexture::cli
