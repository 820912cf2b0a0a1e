#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "backends/ring/communicator.h"

namespace contexture {

/// Ranks that are threads of this process: for tests, and for people without MPI. Runs `body` once for every rank, rank
/// 0 in the caller's thread, and returns when all have ended. Where one throws, the others' next call to their
/// communicator throws too, and the first exception is thrown from here. `patience`: how long a call waits for others.
void run_local_ranks(int ranks, const std::function<void(Communicator&)>& body,
                     std::chrono::seconds patience = std::chrono::seconds(600));

}  // namespace contexture
