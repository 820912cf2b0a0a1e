#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "contexture/graph_backend.h"

namespace contexture {

/// A library that executes compiled graphs (include/contexture/graph_backend.h), with errors thrown as Error.
class GraphBackend {
 public:
  /// "reference" is libcontexture_reference_backend.so beside the program or where libraries are found; a file name or
  /// a path is that library. Throws Error where there is none, or it is of another version.
  static GraphBackend load(const std::string& name_or_path);
  /// One that is part of the program.
  explicit GraphBackend(const cxg_backend& table);

  const cxg_backend& table() const { return *table_; }

 private:
  std::shared_ptr<void> library_;
  const cxg_backend* table_;
};

/// An opened device. Frees its blocks.
class GraphDevice {
 public:
  GraphDevice(GraphBackend backend, const cxg_config& config);
  ~GraphDevice();
  GraphDevice(const GraphDevice&) = delete;
  GraphDevice& operator=(const GraphDevice&) = delete;

  const cxg_backend& table() const { return backend_.table(); }
  cxg_device* get() const { return device_; }
  std::byte* allocate(size_t bytes);

 private:
  GraphBackend backend_;
  cxg_device* device_ = nullptr;
  std::vector<void*> blocks_;
};

/// A shard in a device, with what is registered with it.
class GraphContext {
 public:
  /// `bytes` must outlive this. `name`: of the file, for errors.
  GraphContext(GraphDevice& device, std::span<const std::byte> bytes, std::string name);
  ~GraphContext();
  GraphContext(const GraphContext&) = delete;
  GraphContext& operator=(const GraphContext&) = delete;

  const std::string& name() const { return name_; }
  const std::vector<const cxg_graph*>& graphs() const { return graphs_; }

  /// Binds a tensor to its place in a block: a handle is registered once for each place and shape, and kept.
  void bind(size_t graph, uint32_t direction, size_t tensor, std::byte* block, size_t offset);
  void execute(size_t graph);
  size_t registered() const { return memories_.size(); }
  cxg_timings timings(size_t graph) const;

 private:
  struct Place {
    std::byte* block;
    size_t offset;
    uint32_t type;
    std::vector<uint32_t> dims;
    auto operator<=>(const Place&) const = default;
  };

  GraphDevice& device_;
  std::string name_;
  cxg_context* context_ = nullptr;
  std::vector<const cxg_graph*> graphs_;
  std::map<Place, cxg_memory*> memories_;
};

/// Bytes of one number of a tensor's type; 0 for a type that is not known.
size_t element_bytes(uint32_t type);
/// "float32", "int32", "ufixed8" or "ufixed16".
std::string_view type_name(uint32_t type);
/// Of a dense tensor. Throws Error where they are no sensible number.
size_t tensor_bytes(const cxg_tensor& tensor);
/// "[1,32,2048]".
std::string shape_text(const cxg_tensor& tensor);
std::span<const uint32_t> dims(const cxg_tensor& tensor);

}  // namespace contexture
