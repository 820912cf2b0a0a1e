#include <algorithm>
#include <nlohmann/json.hpp>

#include "backends/static_graph/compile.h"
#include "backends/static_graph/constants.h"
#include "backends/static_graph/value_places.h"

namespace contexture {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string_view data_type(NumberType type) {
  switch (type) {
    case NumberType::f32:
      return "QNN_DATATYPE_FLOAT_32";
    case NumberType::i32:
      return "QNN_DATATYPE_INT_32";
    case NumberType::u8:
      return "QNN_DATATYPE_UFIXED_POINT_8";
    case NumberType::u16:
      return "QNN_DATATYPE_UFIXED_POINT_16";
  }
  return "QNN_DATATYPE_UNDEFINED";
}

/// QNN's offset is what is added to the stored number: the zero point's negative.
OrderedJson quantize_params(const GraphTensor& tensor) {
  if (!is_fixed_point(tensor.type)) {
    return {{"definition", "QNN_DEFINITION_UNDEFINED"},
            {"quantizationEncoding", "QNN_QUANTIZATION_ENCODING_UNDEFINED"}};
  }
  return {{"definition", "QNN_DEFINITION_DEFINED"},
          {"quantizationEncoding", "QNN_QUANTIZATION_ENCODING_SCALE_OFFSET"},
          {"scaleOffset", {{"scale", tensor.encoding.scale}, {"offset", -tensor.encoding.zero_point}}}};
}

OrderedJson tensors(const Graph& graph, const std::vector<uint32_t>& list) {
  OrderedJson all = OrderedJson::array();
  for (const uint32_t i : list) {
    const GraphTensor& t = graph.tensors[i];
    all.push_back({{"info",
                    {{"id", i},
                     {"name", t.name},
                     {"dimensions", t.dims},
                     {"dataType", data_type(t.type)},
                     {"quantizeParams", quantize_params(t)}}}});
  }
  return all;
}

/// Bytes that a graph needs. Of the HTP's own settings (fast memory, threads of its vector unit, compression) this
/// container holds none: 0.
OrderedJson blob_info(const Graph& graph) {
  return {{"info",
           {{"spillFillBufferSize", place_values(graph).bytes},
            {"vtcmSize", 0},
            {"optimizationLevel", 0},
            {"htpDlbc", 0},
            {"numHvxThreads", 0}}}};
}

OrderedJson blob_info_v2(const ShardProgram& program, const Graph& graph) {
  const auto reads = [](const Graph& g, size_t constant) {
    return std::ranges::any_of(g.nodes, [&](const GraphNode& node) {
      return std::ranges::find(node.constants, constant) != node.constants.end();
    });
  };
  size_t own = 0, shared = 0, io = 0;
  for (size_t i = 0; i < program.constants.size(); ++i) {
    const auto readers = std::ranges::count_if(program.graphs, [&](const Graph& g) { return reads(g, i); });
    if (reads(graph, i)) (readers > 1 ? shared : own) += constant_bytes(program.constants[i]);
  }
  for (const auto* list : {&graph.inputs, &graph.outputs}) {
    for (const uint32_t i : *list) io += graph.tensors[i].bytes();
  }
  return {{"constSize", own},
          {"ddrTensorSize", place_values(graph).bytes},
          {"ioTensorSize", io},
          {"sharedWeightsSize", shared}};
}

}  // namespace

std::string description_json(const ShardProgram& program, const std::string& version) {
  OrderedJson graphs = OrderedJson::array();
  for (const Graph& graph : program.graphs) {
    graphs.push_back({{"info",
                       {{"graphName", graph.name},
                        {"graphInputs", tensors(graph, graph.inputs)},
                        {"graphOutputs", tensors(graph, graph.outputs)},
                        {"graphBlobInfo", blob_info(graph)},
                        {"graphBlobInfoV2", blob_info_v2(program, graph)}}}});
  }
  const OrderedJson json = {{"info",
                             {{"buildId", "contexture " + version},
                              {"contextMetadata", {{"info", OrderedJson::object()}}},
                              {"graphs", graphs}}}};
  return json.dump(1) + "\n";
}

}  // namespace contexture
