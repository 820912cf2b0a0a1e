#include "kernels/amx.h"

#include <atomic>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace contexture {
namespace {

/// Tiles are eight kilobytes of registers for each thread: Linux wants to be asked before a process uses them.
bool ask() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;      // leaf 7, edx
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl; the state's number in XCR0
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTile) == 0 || (d & kInt8) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

std::atomic<bool> disabled{false};

}  // namespace

bool amx_may_be_used() {
  static const bool allowed = ask();
  return allowed && !disabled;
}

void disable_amx() {
  disabled = true;
}

}  // namespace contexture
