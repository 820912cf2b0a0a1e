#pragma once

#include <chrono>
#include <functional>

#include "backends/ring/communicator.h"

namespace contexture {

/// Ranks that mpirun started on this machine; 1 where it did not start this program. Needs no MPI.
int mpi_ranks_of_this_machine();

/// Runs `body` as the rank that mpirun started this process for; without mpirun there is one rank. Returns when all
/// ranks have ended. Where `body` throws, one line is printed and all ranks end, with a status that is not 0: then this
/// does not return. Throws Error where libcontexture_mpi.so is not found.
void run_mpi_rank(const std::function<void(Communicator&)>& body, std::chrono::seconds patience);

}  // namespace contexture
