#include "backends/static_graph/value_places.h"

#include <algorithm>

#include "base/aligned.h"

namespace contexture {
namespace {

constexpr size_t kValueAlignment = AlignedArray<std::byte>::alignment;

size_t aligned_value(size_t bytes) {
  return (bytes + kValueAlignment - 1) / kValueAlignment * kValueAlignment;
}

}  // namespace

ValuePlaces place_values(const Graph& graph) {
  const size_t count = graph.tensors.size();
  std::vector<size_t> last_use(count, 0);
  std::vector<uint8_t> outside(count, 0);
  for (const uint32_t i : graph.inputs) outside[i] = 1;
  for (const uint32_t i : graph.outputs) outside[i] = 1;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const uint32_t i : graph.nodes[n].inputs) last_use[i] = n;
    last_use[graph.nodes[n].output] = std::max(last_use[graph.nodes[n].output], n);
  }
  struct Placed {
    size_t begin, end, last_use;
  };
  std::vector<Placed> live;  // by begin
  ValuePlaces places;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    std::erase_if(live, [&](const Placed& p) { return p.last_use < n; });
    const uint32_t tensor = graph.nodes[n].output;
    if (outside[tensor]) continue;
    const size_t bytes = aligned_value(graph.tensors[tensor].bytes());
    size_t at = 0;
    auto before = live.begin();
    for (; before != live.end() && before->begin < at + bytes; ++before) at = before->end;
    live.insert(before, {at, at + bytes, last_use[tensor]});
    places.offsets.emplace_back(tensor, at);
    places.bytes = std::max(places.bytes, at + bytes);
  }
  return places;
}

}  // namespace contexture
