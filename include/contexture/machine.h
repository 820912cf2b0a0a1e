#pragma once

#include <cstddef>
#include <string>

#include "contexture/export.h"

namespace contexture {

/// What this machine has.
struct MachineFacts {
  int physical_cores = 1;      ///< that this process may use
  std::string instructions;    ///< the best set that there are kernels for: "AVX2", "AVX3_DL", "NEON"...
  size_t memory_bytes = 0;     ///< that this process may use: the machine's, or its control group's limit
  size_t available_bytes = 0;  ///< of them, now
};
CONTEXTURE_API MachineFacts machine_facts();

/// Bytes a second that memory delivers to so many threads (0: one a physical core); takes about a second, and a
/// gigabyte of memory.
CONTEXTURE_API double measure_read_bandwidth(int threads = 0);

}  // namespace contexture
