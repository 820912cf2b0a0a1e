#include "backends/static_graph/graph_backend.h"

#include <dlfcn.h>

#include "base/error.h"
#include "base/shipped.h"

namespace contexture {
namespace {

/// What a backend says is a stranger's text.
std::string text_of(const cxg_error& error) {
  const std::string_view text(error.text, sizeof(error.text));
  return printable(text.substr(0, text.find('\0')), 400);
}

void check(int status, const cxg_error& error, std::string_view what) {
  if (status != 0) fail("{}: {}", what, text_of(error));
}

std::string library_name(const std::string& name) {
  return name.find(".so") != name.npos ? name : fmt::format("libcontexture_{}_backend.so", name);
}

void* open_library(const std::string& name_or_path) {
  const bool is_path = name_or_path.find('/') != name_or_path.npos;
  const std::string file = is_path ? name_or_path : shipped_library(library_name(name_or_path));
  return dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
}

}  // namespace

GraphBackend GraphBackend::load(const std::string& name_or_path) {
  const std::string shown = printable(name_or_path, 400);
  void* const library = open_library(name_or_path);
  if (!library) {
    const char* const why = dlerror();
    fail("no graph backend {}: {}; give --backend the name of one or the path of its library", shown,
         printable(why ? why : "it cannot be opened", 300));
  }
  const std::shared_ptr<void> owner(library, [](void* l) { dlclose(l); });
  const auto entry = reinterpret_cast<cxg_entry>(dlsym(library, CXG_ENTRY_NAME));
  if (!entry) {
    fail("{} is no graph backend: it exports no " CXG_ENTRY_NAME "; a vendor's runtime needs an adapter that does",
         shown);
  }
  const cxg_backend* const table = entry(CXG_VERSION);
  if (!table || table->version != CXG_VERSION) {
    fail("graph backend {} does not offer version {} of the interface; build it again", shown, CXG_VERSION);
  }
  GraphBackend backend(*table);
  backend.library_ = owner;
  return backend;
}

GraphBackend::GraphBackend(const cxg_backend& table) : table_(&table) {}

GraphDevice::GraphDevice(GraphBackend backend, const cxg_config& config) : backend_(std::move(backend)) {
  cxg_error error = {};
  check(table().open_device(&config, &device_, &error), error, fmt::format("backend {}", printable(table().name)));
}

GraphDevice::~GraphDevice() {
  for (void* block : blocks_) table().release(device_, block);
  table().close_device(device_);
}

std::byte* GraphDevice::allocate(size_t bytes) {
  blocks_.reserve(blocks_.size() + 1);
  cxg_error error = {};
  void* block = nullptr;
  check(table().allocate(device_, bytes, &block, &error), error, fmt::format("a block of {} bytes", bytes));
  blocks_.push_back(block);
  return static_cast<std::byte*>(block);
}

GraphContext::GraphContext(GraphDevice& device, std::span<const std::byte> bytes, std::string name)
    : device_(device), name_(std::move(name)) {
  cxg_error error = {};
  check(device.table().create_context(device.get(), bytes.data(), bytes.size(), &context_, &error), error, name_);
  const uint32_t count = device.table().graph_count(context_);
  for (uint32_t i = 0; i < count; ++i) graphs_.push_back(device.table().graph(context_, i));
}

GraphContext::~GraphContext() {
  for (const auto& [place, memory] : memories_) device_.table().deregister_memory(context_, memory);
  device_.table().free_context(context_);
}

void GraphContext::bind(size_t graph, uint32_t direction, size_t tensor, std::byte* block, size_t offset) {
  const cxg_graph& g = *graphs_[graph];
  const cxg_tensor& t = direction == CXG_INPUT ? g.inputs[tensor] : g.outputs[tensor];
  const auto what = [&] { return fmt::format("{}, {} {}", name_, printable(g.name), printable(t.name)); };
  Place place = {.block = block, .offset = offset, .type = t.type, .dims = {dims(t).begin(), dims(t).end()}};
  auto found = memories_.find(place);
  cxg_error error = {};
  if (found == memories_.end()) {
    const cxg_view view = {.block = block, .offset = offset, .type = t.type, .rank = t.rank, .dims = t.dims};
    cxg_memory* memory = nullptr;
    check(device_.table().register_memory(context_, &view, &memory, &error), error, what());
    found = memories_.emplace(std::move(place), memory).first;
  }
  const cxg_buffer buffer = {.memory = found->second, .data = nullptr, .bytes = 0};
  const int status = device_.table().bind(context_, static_cast<uint32_t>(graph), direction,
                                          static_cast<uint32_t>(tensor), &buffer, &error);
  if (status != 0) check(status, error, what());
}

void GraphContext::execute(size_t graph) {
  cxg_error error = {};
  const int status = device_.table().execute(context_, static_cast<uint32_t>(graph), &error);
  if (status != 0) check(status, error, fmt::format("{}, {}", name_, printable(graphs_[graph]->name)));
}

cxg_timings GraphContext::timings(size_t graph) const {
  cxg_error error = {};
  cxg_timings timings = {};
  check(device_.table().timings(context_, static_cast<uint32_t>(graph), &timings, &error), error, name_);
  return timings;
}

size_t element_bytes(uint32_t type) {
  switch (type) {
    case CXG_FLOAT_32:
    case CXG_INT_32:
      return 4;
    case CXG_UFIXED_16:
      return 2;
    case CXG_UFIXED_8:
      return 1;
  }
  return 0;
}

std::string_view type_name(uint32_t type) {
  switch (type) {
    case CXG_FLOAT_32:
      return "float32";
    case CXG_INT_32:
      return "int32";
    case CXG_UFIXED_16:
      return "ufixed16";
    case CXG_UFIXED_8:
      return "ufixed8";
  }
  return "?";
}

std::span<const uint32_t> dims(const cxg_tensor& tensor) {
  return {tensor.dims, tensor.rank};
}

size_t tensor_bytes(const cxg_tensor& tensor) {
  size_t bytes = element_bytes(tensor.type);
  if (bytes == 0) fail("tensor {} has the unknown type {}", printable(tensor.name), tensor.type);
  for (const uint32_t d : dims(tensor)) {
    if (d == 0 || bytes > (size_t{1} << 40) / d) {
      fail("tensor {} has the impossible shape {}", printable(tensor.name), shape_text(tensor));
    }
    bytes *= d;
  }
  return bytes;
}

std::string shape_text(const cxg_tensor& tensor) {
  return fmt::format("[{}]", fmt::join(dims(tensor), ","));
}

}  // namespace contexture
