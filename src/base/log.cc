#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

namespace contexture {

void set_log_level(int level) {
  static const auto logger = spdlog::stderr_color_st("contexture");
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(level >= 2 ? spdlog::level::debug : level == 1 ? spdlog::level::info : spdlog::level::warn);
  spdlog::set_default_logger(logger);
}

}  // namespace contexture
