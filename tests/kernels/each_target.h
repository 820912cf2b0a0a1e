#pragma once

#include <hwy/targets.h>

#include <cstdint>

namespace contexture {

/// Calls f for each instruction set that there is a kernel for and that this machine has.
template <class F>
void each_target(const F& f) {
  const int64_t targets = hwy::SupportedTargets();
  for (int64_t left = targets; left != 0; left &= left - 1) {
    hwy::SetSupportedTargetsForTest(left & -left);
    f(hwy::TargetName(left & -left));
    hwy::SetSupportedTargetsForTest(0);
  }
}

}  // namespace contexture
