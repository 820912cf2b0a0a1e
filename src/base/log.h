#pragma once

#include <spdlog/spdlog.h>

namespace contexture {

/// 0: quiet, 1: info, 2: debug; to stderr. Warnings are always shown.
void set_log_level(int level);

}  // namespace contexture
