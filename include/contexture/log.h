#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "contexture/export.h"

namespace contexture {

/// How much a message of the library matters.
enum class LogLevel : uint8_t { debug, info, warning };

/// Sees a message: one line, without its end. It is called from any thread, by several at once where several work. What
/// it throws is passed over.
using LogCallback = std::function<void(LogLevel level, std::string_view message)>;

/// Gives messages to `callback` from now on; an empty one means stderr again, as it is at first. A call of the one
/// before that has begun on another thread may still end after this has returned.
CONTEXTURE_API void set_log(LogCallback callback);

/// Messages that matter less are not made. At first: warning.
CONTEXTURE_API void set_log_level(LogLevel least);

}  // namespace contexture
