#include "base/error.h"
#include "static_graph/executor.h"

namespace contexture {

NodeKernel fixed_kernel(const NodeContext& c) {
  fail("graph {}: this version executes float graphs alone; compile with --recipe float", c.graph.name);
}

}  // namespace contexture
