#include "backends/static_graph/graph_mode.h"

namespace contexture {

std::string_view name(GraphMode mode) {
  return mode == GraphMode::hybrid ? "hybrid" : mode == GraphMode::kv ? "kv" : "prefill";
}

std::optional<GraphMode> graph_mode_named(std::string_view text) {
  for (const GraphMode mode : {GraphMode::hybrid, GraphMode::kv, GraphMode::prefill}) {
    if (name(mode) == text) return mode;
  }
  return std::nullopt;
}

}  // namespace contexture
