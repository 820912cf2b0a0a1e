#pragma once

#include <functional>
#include <vector>

#include "backends/static_graph/graph.h"
#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/fixed_linear.h"

namespace contexture {

/// Runs one graph of a shard on the CPU: what the reference backend does, and what calibration watches. Float graphs in
/// floats, fixed-point ones in integers alone (docs/static_graphs.md states the arithmetic). Results do not depend on
/// the number of threads. Allocates nothing once made.
class GraphExecutor {
 public:
  /// `program` has been checked and holds its data; it and `pool` outlive this. Throws Error where a scale is beyond
  /// what the arithmetic holds.
  GraphExecutor(const ShardProgram& program, size_t graph, ThreadPool& pool);
  GraphExecutor(const GraphExecutor&) = delete;
  GraphExecutor& operator=(const GraphExecutor&) = delete;

  const Graph& graph() const { return graph_; }
  /// Where input or output i lies, as many bytes as it has, aligned for its numbers.
  void bind_input(size_t i, const std::byte* data) { addresses_[graph_.inputs[i]] = const_cast<std::byte*>(data); }
  void bind_output(size_t i, std::byte* data) { addresses_[graph_.outputs[i]] = data; }
  bool is_bound(uint32_t tensor) const { return addresses_[tensor] != nullptr; }

  /// All inputs and outputs are bound. Throws Error where an index is beyond its table.
  void run();

  /// Called after each node with the tensor that it made.
  std::function<void(uint32_t tensor)> observer;

  /// A tensor's place: of a value inside of the graph only until a later one needs the memory.
  std::byte* address(uint32_t tensor) const { return addresses_[tensor]; }
  template <class T>
  T* data(uint32_t tensor) const {
    return reinterpret_cast<T*>(addresses_[tensor]);
  }
  size_t workspace_bytes() const { return arena_.size(); }

 private:
  const ShardProgram& program_;
  const Graph& graph_;
  std::vector<std::byte*> addresses_;  // (tensors)
  AlignedArray<std::byte> arena_;
  FixedScratch scratch_;
  std::vector<std::function<void()>> kernels_;  // (nodes)
};

/// What makes a node's kernel: it looks addresses up each time that it runs.
struct NodeContext {
  const ShardProgram& program;
  const Graph& graph;
  const GraphNode& node;
  const GraphExecutor& executor;
  ThreadPool& pool;
  FixedScratch& scratch;  ///< of linears, one after the other
  uint32_t& split_input;  ///< the tensor that the linear before this one leaves in `scratch`

  const GraphTensor& in(size_t i) const { return graph.tensors[node.inputs[i]]; }
  const GraphTensor& out() const { return graph.tensors[node.output]; }
  const GraphConstant& constant(size_t i) const { return program.constants[node.constants[i]]; }
  template <class T>
  const T* constant_data(size_t i) const {
    return reinterpret_cast<const T*>(constant(i).data.data());
  }
};

using NodeKernel = std::function<void()>;
NodeKernel float_kernel(const NodeContext& c);
NodeKernel fixed_kernel(const NodeContext& c);
/// gather, permute, concat, slice: of any type.
NodeKernel moving_kernel(const NodeContext& c);

}  // namespace contexture
