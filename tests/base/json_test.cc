#include "base/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace contexture {
namespace {

std::string error_of(const std::string& text) {
  try {
    parse_json(text, "some.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Json, ParsesWhatIsJson) {
  EXPECT_EQ(parse_json(R"({"a": [1, 2.5, "x", null]})", "f")["a"][1], 2.5);
  EXPECT_EQ(parse_json(std::string(60, '[') + std::string(60, ']'), "f").size(), 1u);
}

TEST(Json, NamesTheFileAndThePlace) {
  EXPECT_EQ(error_of("{\"a\": }"), "some.json: not JSON from byte 7 on; download the file again");
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("{} {}"), "");
  EXPECT_NE(error_of("\"\xff\xfe\""), "");
}

TEST(Json, RefusesDepthAndHugeNumbers) {
  EXPECT_NE(error_of(std::string(1'000'000, '[')).find("deeper than 64"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(error_of(objects).find("deeper than 64"), std::string::npos);
  std::string many = "[[]";
  for (int i = 0; i < 4'000'000; ++i) many += ",[]";
  EXPECT_NE(error_of(many + "]").find("more values"), std::string::npos);
  EXPECT_NE(error_of("[1e999]").find("too large"), std::string::npos);
  // An integer beyond 64 bits becomes a floating-point number, which no reader takes for a size.
  EXPECT_TRUE(parse_json("[123456789012345678901234567890]", "f")[0].is_number_float());
}

}  // namespace
}  // namespace contexture
