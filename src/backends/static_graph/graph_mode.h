#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace contexture {

/// Which graphs a compiled model has, and which of them run.
enum class GraphMode : uint8_t {
  hybrid,   ///< prefill_forward, A tokens of a prompt an execution, and kv_forward, one token
  kv,       ///< kv_forward alone: a prompt token by token
  prefill,  ///< prefill_forward alone, as long as the context: every position at once, each time anew
};

std::string_view name(GraphMode mode);
std::optional<GraphMode> graph_mode_named(std::string_view name);

}  // namespace contexture
