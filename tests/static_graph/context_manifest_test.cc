#include "backends/static_graph/context_manifest.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "contexture/error.h"

namespace contexture {
namespace {

using Json = nlohmann::json;

ContextManifest example() {
  const auto file = [](const std::string& name) { return ContextManifest::File{name, 12, std::string(32, 'a')}; };
  ContextManifest m = {.model = "stories",
                       .mode = "hybrid",
                       .recipe = "16a4w",
                       .kv_layout = "per-head",
                       .context = 512,
                       .prefill_length = 32,
                       .kv_bits = 8,
                       .layers = 5,
                       .tokenizer = file("tokenizer.gguf")};
  m.shards.push_back({file("forward_0.bin"), file("forward_0_json.json"), 0, 3});
  m.shards.push_back({file("forward_1.bin"), file("forward_1_json.json"), 3, 2});
  return m;
}

template <class Change>
std::string refusal(const Change& change) {
  Json json = Json::parse(manifest_text(example()));
  change(json);
  try {
    (void)parse_manifest(json.dump(), "manifest.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ContextManifest, ComesBackAsItWas) {
  EXPECT_EQ(parse_manifest(manifest_text(example()), "manifest.json"), example());
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
  says(refusal([](Json& j) { j["shards"][0]["binary"]["name"] = "../x"; }), "no name of a file");
  says(refusal([](Json& j) { j["shards"] = 1; }), "expected a list");
  says(refusal([](Json& j) { j = 3; }), "expected an object");
}

TEST(ContextManifest, HashesBytes) {
  const ContextManifest::File nothing = identify_bytes("x", {});
  EXPECT_EQ(nothing.xxh3, "99aa06d3014798d86001c324468d497f");  // XXH3-128 of no bytes, as xxhsum -H2 says
  EXPECT_EQ(nothing.bytes, 0u);
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
