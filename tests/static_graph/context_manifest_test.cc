#include "static_graph/context_manifest.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "contexture/error.h"

namespace contexture {
namespace {

using Json = nlohmann::json;

Json example() {
  const auto file = [](const char* name) { return Json{{"file", name}, {"bytes", 12}, {"sha256", "ab"}}; };
  Json shards = {
      {{"first_layer", 0}, {"layers", 3}, {"binary", file("forward_0.bin")}, {"description", file("a.json")}},
      {{"first_layer", 3}, {"layers", 2}, {"binary", file("forward_1.bin")}, {"description", file("b.json")}}};
  return {{"format", "contexture static graphs"},
          {"version", 1},
          {"model", {{"layers", 5}}},
          {"mode", "hybrid"},
          {"context", 512},
          {"prefill_length", 32},
          {"kv_layout", "per-head"},
          {"kv_bits", 8},
          {"recipe", "16a4w"},
          {"tokenizer", file("tokenizer.gguf")},
          {"shards", shards}};
}

template <class Change>
std::string refusal(const Change& change) {
  Json json = example();
  change(json);
  try {
    (void)parse_manifest(json.dump(), "manifest.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ContextManifest, IsRead) {
  const ContextManifest m = parse_manifest(example().dump(), "manifest.json");
  EXPECT_EQ(m.mode, "hybrid");
  EXPECT_EQ(m.context, 512u);
  EXPECT_EQ(m.prefill_length, 32u);
  EXPECT_EQ(m.kv_bits, 8u);
  EXPECT_EQ(m.kv_layout, "per-head");
  EXPECT_EQ(m.layers, 5u);
  EXPECT_EQ(m.tokenizer->name, "tokenizer.gguf");
  ASSERT_EQ(m.shards.size(), 2u);
  EXPECT_EQ(m.shards[1].binary.name, "forward_1.bin");
  EXPECT_EQ(m.shards[1].binary.bytes, 12u);
  EXPECT_EQ(m.shards[1].description.name, "b.json");
  EXPECT_EQ(m.shards[1].first_layer, 3u);
  EXPECT_EQ(m.shards[1].layers, 2u);
}

TEST(ContextManifest, SaysWhatIsWrong) {
  const auto says = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  says(refusal([](Json& j) { j["format"] = "x"; }), "is this a folder that compile wrote?");
  says(refusal([](Json& j) { j["version"] = 2; }), "expected version 1, found 2");
  says(refusal([](Json& j) { j.erase("mode"); }), "has no mode");
  says(refusal([](Json& j) { j["context"] = -1; }), "context: expected a whole number");
  says(refusal([](Json& j) { j["shards"].erase(1); }), "expected 5 layers in its shards, found 3");
  says(refusal([](Json& j) { j["shards"][1]["first_layer"] = 2; }), "expected layers from 3, found 2 from 2");
  says(refusal([](Json& j) { j["shards"][0]["layers"] = 18446744073709551615u; }), "expected layers from 0");
  says(refusal([](Json& j) { j["shards"][0]["binary"]["file"] = "../x"; }), "no name of a file");
  says(refusal([](Json& j) { j["shards"] = 1; }), "expected a list");
  says(refusal([](Json& j) { j = 3; }), "expected an object");
}

struct Described {
  uint32_t dims[3] = {1, 8, 16};
  cxg_tensor input = {.id = 4, .name = "tokens", .type = CXG_INT_32, .rank = 2, .dims = dims, .scale = 0, .offset = 0};
  cxg_tensor output = {
      .id = 9, .name = "logits", .type = CXG_UFIXED_16, .rank = 3, .dims = dims, .scale = 0.1f, .offset = -31143};
  cxg_graph graph = {"kv_forward", 1, &input, 1, &output};
  const cxg_graph* graphs[1] = {&graph};

  Json json = Json::parse(R"({"info":{"graphs":[{"info":{"graphName":"kv_forward",
    "graphInputs":[{"info":{"id":4,"name":"tokens","dataType":"QNN_DATATYPE_INT_32","dimensions":[1,8],
      "quantizeParams":{"definition":"QNN_DEFINITION_UNDEFINED"}}}],
    "graphOutputs":[{"info":{"id":9,"name":"logits","dataType":"QNN_DATATYPE_UFIXED_POINT_16","dimensions":[1,8,16],
      "quantizeParams":{"scaleOffset":{"scale":0.1,"offset":-31143}}}}]}}]}})");

  std::string refusal() const {
    try {
      check_context_json(json.dump(), "forward_0_json.json", graphs);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST(ContextJson, IsHeldAgainstTheBinary) {
  EXPECT_EQ(Described().refusal(), "");
  const auto refusal = [](const char* pointer, const Json& value) {
    Described d;
    d.json[Json::json_pointer(pointer)] = value;
    return d.refusal();
  };
  const auto says = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  says(refusal("/info/graphs/0/info/graphName", "x"), "its name is kv_forward in the binary and x here");
  says(refusal("/info/graphs/0/info/graphOutputs/0/info/dimensions/2", 17), "[1,8,16] in the binary and [1,8,17]");
  says(refusal("/info/graphs/0/info/graphOutputs/0/info/id", 1), "its id is 9");
  says(refusal("/info/graphs/0/info/graphInputs/0/info/dataType", "QNN_DATATYPE_FLOAT_32"), "QNN_DATATYPE_INT_32");
  says(refusal("/info/graphs/0/info/graphOutputs/0/info/quantizeParams/scaleOffset/offset", 31143), "-31143");
  says(refusal("/info/graphs/0/info/graphOutputs/0/info/quantizeParams/scaleOffset/scale", 0.2), "scale and offset");
  says(refusal("/info/graphs/0/info/graphOutputs/0/info/quantizeParams", Json::object()), "has no scaleOffset");
  says(refusal("/info/graphs/0/info/graphInputs", Json::array()), "number of inputs is 1 in the binary and 0 here");
  says(refusal("/info/graphs", Json::array()), "number of graphs is 1");
  says(refusal("/info/graphs/0", 5), "expected an object");
}

}  // namespace
}  // namespace contexture
