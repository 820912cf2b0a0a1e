// Any bytes as a shard: they are read or refused by Error. Size and checksum are put right first, or nothing would get
// past them. What was read is loaded, and small ones are executed.

#include <xxhash.h>

#include <cstdint>
#include <cstring>

#include "backends/static_graph/container.h"
#include "backends/static_graph/executor.h"
#include "base/aligned.h"
#include "base/error.h"

using namespace contexture;

namespace {

/// Bytes and steps that executing a graph takes: the time and memory of a large one are no fault.
double cost(const ShardProgram& program, const Graph& graph) {
  double all = 0;
  for (const GraphTensor& t : graph.tensors) all += static_cast<double>(t.bytes());
  for (const GraphNode& n : graph.nodes) {
    const double out = static_cast<double>(graph.tensors[n.output].elements());
    if (n.op == Operator::matmul) all += out * static_cast<double>(graph.tensors[n.inputs[0]].dim(0));
    if (n.op == Operator::linear) all += out * static_cast<double>(program.constants[n.constants[0]].columns);
    if (n.op == Operator::softmax) all += static_cast<double>(graph.tensors[n.output].dim(0));
    if (n.op == Operator::silu || n.op == Operator::gelu || n.op == Operator::softcap) all += 65536;
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ThreadPool pool(1);
  AlignedArray<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  if (size >= 72) {
    const uint64_t file_bytes = size;
    std::memcpy(bytes.data() + 32, &file_bytes, 8);
    const uint64_t checksum = XXH3_64bits(bytes.data(), size - 8);
    std::memcpy(bytes.data() + size - 8, &checksum, 8);
  }
  try {
    const ShardProgram program = read_container(bytes.span(), "fuzz.bin");
    if (to_text(program).empty()) __builtin_trap();
    for (size_t g = 0; g < program.graphs.size(); ++g) {
      const Graph& graph = program.graphs[g];
      if (cost(program, graph) > 2e6) continue;
      GraphExecutor executor(program, g, pool);
      std::vector<AlignedArray<std::byte>> buffers;
      const auto buffer = [&](uint32_t tensor) {
        buffers.emplace_back(graph.tensors[tensor].bytes());
        std::memset(buffers.back().data(), 0, buffers.back().size());
        return buffers.back().data();
      };
      for (size_t i = 0; i < graph.inputs.size(); ++i) executor.bind_input(i, buffer(graph.inputs[i]));
      for (size_t i = 0; i < graph.outputs.size(); ++i) executor.bind_output(i, buffer(graph.outputs[i]));
      executor.run();
    }
  } catch (const Error&) {
  }
  return 0;
}
