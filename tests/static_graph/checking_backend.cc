#include "static_graph/checking_backend.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace {

const cxg_backend* inner = nullptr;
cxg_backend table = {};
size_t poisoned = 0;

size_t element_bytes(uint32_t type) {
  return type == CXG_UFIXED_8 ? 1 : type == CXG_UFIXED_16 ? 2 : 4;
}

size_t bytes_of(uint32_t type, const uint32_t* dims, uint32_t rank) {
  size_t bytes = element_bytes(type);
  for (uint32_t i = 0; i < rank; ++i) bytes *= dims[i];
  return bytes;
}

int refuse(cxg_error* error, const std::string& text) {
  std::strncpy(error->text, text.c_str(), sizeof(error->text) - 1);
  return 1;
}

struct Memory;

struct Bound {
  std::byte* data = nullptr;
  Memory* memory = nullptr;
};

struct Tensors {
  std::vector<Bound> in, out;
};

struct Device {
  cxg_device* device = nullptr;
  std::map<std::byte*, size_t> blocks = {};
};

struct Memory {
  cxg_memory* memory;
  std::byte* data;
  uint32_t type;
  std::vector<uint32_t> dims;
};

struct Context {
  Device* device = nullptr;
  cxg_context* context = nullptr;
  std::vector<Tensors> bound = {};
  std::set<Memory*> memories = {};
  std::mt19937 random = std::mt19937(11);

  void poison(std::byte* data, uint32_t type, size_t numbers);
  void poison_cache(const cxg_graph& graph, const Tensors& tensors);
  int check_overlaps(const cxg_graph& graph, const Tensors& tensors, cxg_error* error) const;
  int execute(uint32_t index, cxg_error* error);
};

Device& of(cxg_device* device) {
  return *reinterpret_cast<Device*>(device);
}
Context& of(cxg_context* context) {
  return *reinterpret_cast<Context*>(context);
}
const Context& of(const cxg_context* context) {
  return *reinterpret_cast<const Context*>(context);
}

void Context::poison(std::byte* data, uint32_t type, size_t numbers) {
  if (type == CXG_FLOAT_32) {
    for (size_t i = 0; i < numbers; ++i) {
      const uint32_t die = random();
      const float x = die % 4 == 0   ? std::numeric_limits<float>::quiet_NaN()
                      : die % 4 == 1 ? std::numeric_limits<float>::infinity()
                                     : static_cast<float>(die) - 2e9f;
      std::memcpy(data + i * sizeof(x), &x, sizeof(x));
    }
    return;
  }
  for (size_t i = 0; i < numbers * element_bytes(type); ++i) data[i] = static_cast<std::byte>(random());
}

/// The window's columns that no row of the mask shows.
void Context::poison_cache(const cxg_graph& graph, const Tensors& tensors) {
  const std::byte* mask = nullptr;
  uint32_t type = 0, a = 0, c = 0;
  for (uint32_t i = 0; i < graph.input_count; ++i) {
    const cxg_tensor& t = graph.inputs[i];
    if (std::strcmp(t.name, "atten_mask") != 0) continue;
    mask = tensors.in[i].data;
    type = t.type;
    a = t.dims[2];
    c = t.dims[3];
  }
  if (!mask) return;
  const auto shown = [&](size_t row, size_t column) {
    const size_t i = row * c + column;
    if (type == CXG_FLOAT_32) return reinterpret_cast<const float*>(mask)[i] == 0;
    return type == CXG_UFIXED_16 ? reinterpret_cast<const uint16_t*>(mask)[i] != 0
                                 : reinterpret_cast<const uint8_t*>(mask)[i] != 0;
  };
  const size_t window = c - a;
  for (size_t column = 0; column < window; ++column) {
    bool hidden = true;
    for (size_t row = 0; row < a; ++row) hidden = hidden && !shown(row, column);
    if (!hidden) continue;
    for (uint32_t i = 0; i < graph.input_count; ++i) {
      const cxg_tensor& t = graph.inputs[i];
      const bool is_k = std::strncmp(t.name, "k_in_", 5) == 0, is_v = std::strncmp(t.name, "v_in_", 5) == 0;
      if (!is_k && !is_v) continue;
      const size_t numbers = bytes_of(t.type, t.dims, t.rank) / element_bytes(t.type);
      const size_t d = is_v ? t.dims[t.rank - 1] : 1;  // that lie together
      for (size_t start = column * d; start < numbers; start += window * d) {
        poison(tensors.in[i].data + start * element_bytes(t.type), t.type, d);
        poisoned += d;
      }
    }
  }
}

int Context::check_overlaps(const cxg_graph& graph, const Tensors& tensors, cxg_error* error) const {
  struct Range {
    const std::byte *first, *last;
    bool is_output;
    const char* name;
  };
  std::vector<Range> ranges;
  for (const bool is_output : {false, true}) {
    const auto& bound = is_output ? tensors.out : tensors.in;
    for (uint32_t i = 0; i < bound.size(); ++i) {
      const cxg_tensor& t = is_output ? graph.outputs[i] : graph.inputs[i];
      if (!bound[i].data) return refuse(error, std::string(t.name) + " is not bound");
      ranges.push_back({bound[i].data, bound[i].data + bytes_of(t.type, t.dims, t.rank), is_output, t.name});
    }
  }
  for (const Range& o : ranges) {
    for (const Range& r : ranges) {
      if (o.is_output && &o != &r && o.first < r.last && r.first < o.last) {
        return refuse(error, std::string("output ") + o.name + " overlaps " + r.name);
      }
    }
  }
  return 0;
}

int Context::execute(uint32_t index, cxg_error* error) {
  const cxg_graph& graph = *inner->graph(context, index);
  const Tensors& tensors = bound[index];
  if (const int status = check_overlaps(graph, tensors, error)) return status;
  std::vector<std::vector<std::byte>> first(tensors.out.size());
  for (int time = 0; time < 2; ++time) {
    poison_cache(graph, tensors);
    for (uint32_t i = 0; i < tensors.out.size(); ++i) {
      const cxg_tensor& t = graph.outputs[i];
      poison(tensors.out[i].data, t.type, bytes_of(t.type, t.dims, t.rank) / element_bytes(t.type));
    }
    if (const int status = inner->execute(context, index, error)) return status;
    for (uint32_t i = 0; i < tensors.out.size(); ++i) {
      const cxg_tensor& t = graph.outputs[i];
      const std::vector<std::byte> now(tensors.out[i].data, tensors.out[i].data + bytes_of(t.type, t.dims, t.rank));
      if (time == 0) {
        first[i] = now;
      } else if (first[i] != now) {
        return refuse(error, std::string("output ") + t.name + " depends on what it must not see");
      }
    }
  }
  return 0;
}

int register_memory(cxg_context* opaque, const cxg_view* view, cxg_memory** memory, cxg_error* error) {
  Context* const context = &of(opaque);
  const auto block = context->device->blocks.find(static_cast<std::byte*>(view->block));
  if (block == context->device->blocks.end()) return refuse(error, "a view of memory that was not allocated here");
  const size_t bytes = bytes_of(view->type, view->dims, view->rank);
  if (view->offset > block->second || bytes > block->second - view->offset) {
    return refuse(error, "a view reaches beyond its block");
  }
  std::byte* const data = block->first + view->offset;
  const size_t alignment = std::max<size_t>(table.alignment, element_bytes(view->type));
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    return refuse(error, "a view is not aligned to " + std::to_string(alignment) + " bytes");
  }
  const std::vector<uint32_t> dims(view->dims, view->dims + view->rank);
  for (const Memory* m : context->memories) {
    if (m->data == data && m->type == view->type && m->dims == dims) return refuse(error, "a view is registered twice");
  }
  cxg_view of_inner = *view;
  cxg_memory* made = nullptr;
  if (const int status = inner->register_memory(context->context, &of_inner, &made, error)) return status;
  auto* const checked = new Memory{made, data, view->type, dims};
  *memory = reinterpret_cast<cxg_memory*>(checked);
  context->memories.insert(checked);
  return 0;
}

int bind(cxg_context* opaque, uint32_t graph, uint32_t direction, uint32_t tensor, const cxg_buffer* buffer,
         cxg_error* error) {
  Context* const context = &of(opaque);
  if (graph >= context->bound.size()) return refuse(error, "bind: no such graph");
  auto& list = direction == CXG_INPUT ? context->bound[graph].in : context->bound[graph].out;
  if (tensor >= list.size()) return refuse(error, "bind: no such tensor");
  const cxg_graph& g = *inner->graph(context->context, graph);
  const cxg_tensor& t = direction == CXG_INPUT ? g.inputs[tensor] : g.outputs[tensor];
  cxg_buffer of_inner = *buffer;
  if (auto* const m = reinterpret_cast<Memory*>(buffer->memory)) {
    if (!context->memories.contains(m)) return refuse(error, "bind: memory of another context, or none any more");
    if (m->type != t.type || m->dims != std::vector<uint32_t>(t.dims, t.dims + t.rank)) {
      return refuse(error, std::string(t.name) + " is bound to memory of another type or shape");
    }
    of_inner.memory = m->memory;
    list[tensor] = {m->data, m};
  } else {
    const size_t alignment = std::max<size_t>(table.alignment, element_bytes(t.type));
    if (buffer->bytes < bytes_of(t.type, t.dims, t.rank)) return refuse(error, "bind: the buffer is too small");
    if (reinterpret_cast<uintptr_t>(buffer->data) % alignment != 0) return refuse(error, "bind: misaligned");
    list[tensor] = {static_cast<std::byte*>(buffer->data), nullptr};
  }
  return inner->bind(context->context, graph, direction, tensor, &of_inner, error);
}

int create_context(cxg_device* device, const void* bytes, uint64_t size, cxg_context** context, cxg_error* error) {
  cxg_context* made = nullptr;
  if (const int status = inner->create_context(of(device).device, bytes, size, &made, error)) return status;
  auto* const checked = new Context{.device = &of(device), .context = made};
  for (uint32_t i = 0; i < inner->graph_count(made); ++i) {
    const cxg_graph* const graph = inner->graph(made, i);
    checked->bound.push_back({std::vector<Bound>(graph->input_count), std::vector<Bound>(graph->output_count)});
  }
  *context = reinterpret_cast<cxg_context*>(checked);
  return 0;
}

int allocate(cxg_device* device, uint64_t bytes, void** block, cxg_error* error) {
  if (bytes == 0) return refuse(error, "a block of nothing");
  if (const int status = inner->allocate(of(device).device, bytes, block, error)) return status;
  of(device).blocks.emplace(static_cast<std::byte*>(*block), bytes);
  return 0;
}

}  // namespace

namespace contexture {

const cxg_backend& checking_backend(const cxg_backend& checked, uint32_t alignment) {
  inner = &checked;
  table = {
      .version = CXG_VERSION,
      .name = "checking",
      .build = checked.build,
      .alignment = std::max(alignment, checked.alignment),
      .open_device =
          [](const cxg_config* config, cxg_device** device, cxg_error* error) {
            auto* const checked = new Device;
            *device = reinterpret_cast<cxg_device*>(checked);
            return inner->open_device(config, &checked->device, error);
          },
      .close_device =
          [](cxg_device* device) {
            inner->close_device(of(device).device);
            delete &of(device);
          },
      .allocate = allocate,
      .release =
          [](cxg_device* device, void* block) {
            of(device).blocks.erase(static_cast<std::byte*>(block));
            inner->release(of(device).device, block);
          },
      .create_context = create_context,
      .free_context =
          [](cxg_context* context) {
            inner->free_context(of(context).context);
            delete &of(context);
          },
      .graph_count = [](const cxg_context* context) { return inner->graph_count(of(context).context); },
      .graph = [](const cxg_context* context, uint32_t index) { return inner->graph(of(context).context, index); },
      .register_memory = register_memory,
      .deregister_memory =
          [](cxg_context* context, cxg_memory* memory) {
            auto* const checked = reinterpret_cast<Memory*>(memory);
            inner->deregister_memory(of(context).context, checked->memory);
            of(context).memories.erase(checked);
            delete checked;
          },
      .bind = bind,
      .execute = [](cxg_context* context, uint32_t graph,
                    cxg_error* error) { return of(context).execute(graph, error); },
      .timings = [](const cxg_context* context, uint32_t graph, cxg_timings* timings,
                    cxg_error* error) { return inner->timings(of(context).context, graph, timings, error); },
  };
  return table;
}

size_t poisoned_numbers() {
  return poisoned;
}

}  // namespace contexture
