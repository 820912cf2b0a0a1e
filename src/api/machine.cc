#include "contexture/machine.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/machine.h"
#include "kernels/matmul.h"

namespace contexture {
namespace {

/// The kilobytes that /proc/meminfo has under a key; 0: none.
size_t meminfo_bytes(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    size_t kilobytes = 0;
    if (words >> name >> kilobytes && name == key) return kilobytes * 1024;
  }
  return 0;
}

/// A number that a control group's file holds; `otherwise` where it holds none ("max") or is not there.
size_t number_in(const char* path, size_t otherwise) {
  size_t value = 0;
  return std::ifstream(path) >> value ? value : otherwise;
}

}  // namespace

MachineFacts machine_facts() {
  const size_t all = meminfo_bytes("MemTotal:"), limit = number_in("/sys/fs/cgroup/memory.max", all);
  const size_t used = number_in("/sys/fs/cgroup/memory.current", 0);
  const size_t left = limit < all ? limit - std::min(limit, used) : all;
  return {.physical_cores = physical_cores(),
          .instructions = std::string(kernel_target()),
          .memory_bytes = std::min(all, limit),
          .available_bytes = std::min(meminfo_bytes("MemAvailable:"), left)};
}

double measure_read_bandwidth(int threads) {
  ThreadPool pool(threads > 0 ? threads : physical_cores());
  AlignedArray<std::byte> memory(size_t{1} << 30);
  std::fill_n(memory.data(), memory.size(), std::byte{1});
  return read_bandwidth(memory.span(), pool);
}

}  // namespace contexture
