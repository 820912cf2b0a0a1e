// The reference backend (include/contexture/graph_backend.h): forward_i.bin executed on the CPU, by the thread that
// calls and the device's pool. Memory of any address will do; registering a view only checks it.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <new>
#include <vector>

#include "backends/static_graph/container.h"
#include "backends/static_graph/executor.h"
#include "base/aligned.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "contexture/graph_backend.h"
#include "kernels/matmul.h"

using contexture::AlignedArray;
using contexture::fail;
using contexture::GraphTensor;

struct cxg_memory {
  std::byte* data;
  uint32_t type;
  std::vector<uint32_t> dims;
};

struct cxg_device {
  explicit cxg_device(const cxg_config& config) : pool(static_cast<int>(config.threads)), log_level(config.log_level) {}

  contexture::ThreadPool pool;
  uint32_t log_level;
  std::map<void*, AlignedArray<std::byte>> blocks;
};

namespace {

/// A graph as the interface shows it, and what runs it.
struct LoadedGraph {
  LoadedGraph(const contexture::ShardProgram& program, size_t index, contexture::ThreadPool& pool)
      : executor(program, index, pool) {
    const contexture::Graph& graph = executor.graph();
    for (const uint32_t i : graph.inputs) inputs.push_back(shown(i, graph.tensors[i]));
    for (const uint32_t i : graph.outputs) outputs.push_back(shown(i, graph.tensors[i]));
    view = {.name = graph.name.c_str(),
            .input_count = static_cast<uint32_t>(inputs.size()),
            .inputs = inputs.data(),
            .output_count = static_cast<uint32_t>(outputs.size()),
            .outputs = outputs.data()};
  }

  static cxg_tensor shown(uint32_t id, const GraphTensor& tensor) {
    return {.id = id,
            .name = tensor.name.c_str(),
            .type = static_cast<uint32_t>(tensor.type),
            .rank = static_cast<uint32_t>(tensor.dims.size()),
            .dims = tensor.dims.data(),
            .scale = tensor.encoding.scale,
            .offset = -tensor.encoding.zero_point};
  }

  /// Throws where a tensor is not bound, or what is written overlaps with anything else.
  void check_places() {
    const contexture::Graph& graph = executor.graph();
    struct Place {
      const std::byte *begin, *end;
      bool written;
      uint32_t tensor;
    };
    std::vector<Place> places;
    for (const bool written : {false, true}) {
      for (const uint32_t i : written ? graph.outputs : graph.inputs) {
        const std::byte* at = executor.address(i);
        if (!at) fail("{}: {} is not bound", graph.name, graph.tensors[i].name);
        places.push_back({at, at + graph.tensors[i].bytes(), written, i});
      }
    }
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.begin < b.begin; });
    const Place* furthest = nullptr;  // that reaches furthest of those so far
    const Place* furthest_written = nullptr;
    for (const Place& p : places) {
      const Place* other = p.written ? furthest : furthest_written;
      if (other && other->end > p.begin) {
        fail("{}: {} overlaps {}", graph.name, graph.tensors[p.tensor].name, graph.tensors[other->tensor].name);
      }
      if (!furthest || p.end > furthest->end) furthest = &p;
      if (p.written && (!furthest_written || p.end > furthest_written->end)) furthest_written = &p;
    }
    places_checked = true;
  }

  contexture::GraphExecutor executor;
  std::vector<cxg_tensor> inputs, outputs;
  cxg_graph view = {};
  cxg_timings timings = {};
  bool places_checked = false;
};

}  // namespace

struct cxg_context {
  cxg_device& device;
  contexture::ShardProgram program;
  std::vector<std::unique_ptr<LoadedGraph>> graphs;
  std::map<cxg_memory*, std::unique_ptr<cxg_memory>> memories;
};

namespace {

/// Runs `body`; what it throws becomes text.
template <class Body>
int guarded(cxg_error* error, const Body& body) {
  const char* text = "out of memory";
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    if (error) std::snprintf(error->text, sizeof error->text, "%s", text);
  } catch (const std::exception& e) {
    if (error) std::snprintf(error->text, sizeof error->text, "%s", e.what());
  }
  return 1;
}

LoadedGraph& graph_of(const cxg_context* context, uint32_t index) {
  if (index >= context->graphs.size()) fail("there is no graph {}; there are {}", index, context->graphs.size());
  return *context->graphs[index];
}

int open_device(const cxg_config* config, cxg_device** device, cxg_error* error) {
  return guarded(error, [&] {
    if (config->threads < 1 || config->threads > 1024) fail("{} threads; give 1 to 1024", config->threads);
    if (config->options && *config->options) fail("the reference backend has no options");
    *device = new cxg_device(*config);
  });
}

void close_device(cxg_device* device) {
  delete device;
}

int allocate(cxg_device* device, uint64_t bytes, void** block, cxg_error* error) {
  return guarded(error, [&] {
    if (bytes == 0 || bytes > (uint64_t{1} << 46)) fail("cannot allocate {} bytes", bytes);
    AlignedArray<std::byte> memory(bytes);
    *block = memory.data();
    device->blocks.emplace(*block, std::move(memory));
  });
}

void release(cxg_device* device, void* block) {
  device->blocks.erase(block);
}

int create_context(cxg_device* device, const void* bytes, uint64_t size, cxg_context** context, cxg_error* error) {
  return guarded(error, [&] {
    auto made =
        std::make_unique<cxg_context>(cxg_context{.device = *device, .program = {}, .graphs = {}, .memories = {}});
    made->program = contexture::read_container({static_cast<const std::byte*>(bytes), size}, "the shard");
    for (size_t i = 0; i < made->program.graphs.size(); ++i) {
      made->graphs.push_back(std::make_unique<LoadedGraph>(made->program, i, device->pool));
    }
    if (device->log_level >= 2) {
      for (const auto& graph : made->graphs) {
        std::fprintf(stderr, "reference backend: %s, %zu nodes, %zu bytes of scratch memory\n", graph->view.name,
                     graph->executor.graph().nodes.size(), graph->executor.workspace_bytes());
      }
    }
    *context = made.release();
  });
}

void free_context(cxg_context* context) {
  delete context;
}

uint32_t graph_count(const cxg_context* context) {
  return static_cast<uint32_t>(context->graphs.size());
}

const cxg_graph* graph(const cxg_context* context, uint32_t index) {
  return index < context->graphs.size() ? &context->graphs[index]->view : nullptr;
}

int register_memory(cxg_context* context, const cxg_view* view, cxg_memory** memory, cxg_error* error) {
  return guarded(error, [&] {
    const auto block = context->device.blocks.find(view->block);
    if (block == context->device.blocks.end()) fail("the view's block is none of this device's");
    if (view->type < CXG_FLOAT_32 || view->type > CXG_UFIXED_16) fail("the view has no type");
    uint64_t bytes = contexture::bytes_of(static_cast<contexture::NumberType>(view->type));
    const uint64_t there = block->second.size();
    for (uint32_t i = 0; i < view->rank; ++i) {
      if (view->dims[i] == 0 || bytes > there / view->dims[i]) fail("the view does not fit in its block");
      bytes *= view->dims[i];
    }
    if (view->offset > there || bytes > there - view->offset) fail("the view does not fit in its block");
    auto made = std::make_unique<cxg_memory>(cxg_memory{.data = block->second.data() + view->offset,
                                                        .type = view->type,
                                                        .dims = {view->dims, view->dims + view->rank}});
    *memory = made.get();
    context->memories.emplace(made.get(), std::move(made));
  });
}

void deregister_memory(cxg_context* context, cxg_memory* memory) {
  context->memories.erase(memory);
}

int bind(cxg_context* context, uint32_t index, uint32_t direction, uint32_t tensor, const cxg_buffer* buffer,
         cxg_error* error) {
  return guarded(error, [&] {
    LoadedGraph& loaded = graph_of(context, index);
    if (direction != CXG_INPUT && direction != CXG_OUTPUT) fail("direction {} is none", direction);
    const contexture::Graph& g = loaded.executor.graph();
    const std::vector<uint32_t>& list = direction == CXG_INPUT ? g.inputs : g.outputs;
    if (tensor >= list.size()) fail("{} has no tensor {}; there are {}", g.name, tensor, list.size());
    const GraphTensor& t = g.tensors[list[tensor]];
    std::byte* data = static_cast<std::byte*>(buffer->data);
    if (buffer->memory) {
      if (!context->memories.contains(buffer->memory)) fail("{}: its memory is not registered here", t.name);
      if (buffer->memory->type != static_cast<uint32_t>(t.type) || buffer->memory->dims != t.dims) {
        fail("{}: its memory is registered with another type or shape", t.name);
      }
      data = buffer->memory->data;
    } else if (!data || buffer->bytes < t.bytes()) {
      fail("{}: {} bytes are there, it has {}", t.name, data ? buffer->bytes : 0, t.bytes());
    }
    if (reinterpret_cast<uintptr_t>(data) % contexture::bytes_of(t.type) != 0)
      fail("{}: its address is misaligned", t.name);
    if (direction == CXG_INPUT) {
      loaded.executor.bind_input(tensor, data);
    } else {
      loaded.executor.bind_output(tensor, data);
    }
    loaded.places_checked = false;
  });
}

int execute(cxg_context* context, uint32_t index, cxg_error* error) {
  return guarded(error, [&] {
    LoadedGraph& loaded = graph_of(context, index);
    if (!loaded.places_checked) loaded.check_places();
    const auto start = std::chrono::steady_clock::now();
    loaded.executor.run();
    const auto took = std::chrono::steady_clock::now() - start;
    loaded.timings.last_nanoseconds =
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(took).count());
    loaded.timings.total_nanoseconds += loaded.timings.last_nanoseconds;
    ++loaded.timings.executions;
  });
}

int timings(const cxg_context* context, uint32_t index, cxg_timings* out, cxg_error* error) {
  return guarded(error, [&] { *out = graph_of(context, index).timings; });
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const cxg_backend* contexture_graph_backend(uint32_t version) {
  static const cxg_backend backend = {.version = CXG_VERSION,
                                      .name = "reference",
                                      .build = contexture::kernel_target(),
                                      .alignment = 1,
                                      .open_device = open_device,
                                      .close_device = close_device,
                                      .allocate = allocate,
                                      .release = release,
                                      .create_context = create_context,
                                      .free_context = free_context,
                                      .graph_count = graph_count,
                                      .graph = graph,
                                      .register_memory = register_memory,
                                      .deregister_memory = deregister_memory,
                                      .bind = bind,
                                      .execute = execute,
                                      .timings = timings};
  return version == CXG_VERSION ? &backend : nullptr;
}
