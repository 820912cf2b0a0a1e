#include "files/metadata.h"

#include <gmock/gmock.h>

#include <limits>

#include "files/support.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Metadata sample() {
  Metadata metadata;
  metadata.set_int("layers", 12);
  metadata.set_float("epsilon", 0.5);
  metadata.set_bool("tied", true);
  metadata.set_string("name", "tiny");
  metadata.set_strings("pieces", {"a", "b"});
  metadata.set_ints("types", {1, -2});
  metadata.set_floats("scores", {0.25f, -1.0f});
  metadata.add("huge", {.type = MetadataType::u64, .data = std::numeric_limits<uint64_t>::max()});
  return metadata;
}

TEST(Metadata, ReturnsWhatWasSet) {
  const Metadata m = sample();
  EXPECT_EQ(m.get_int("layers", 0, 100), 12);
  EXPECT_EQ(m.get_float("epsilon"), 0.5);
  EXPECT_TRUE(m.get_bool("tied", false));
  EXPECT_EQ(m.get_string("name"), "tiny");
  EXPECT_THAT(m.get_strings("pieces"), ElementsAre("a", "b"));
  EXPECT_THAT(m.get_ints("types"), ElementsAre(1, -2));
  EXPECT_THAT(m.get_floats("scores"), ElementsAre(0.25f, -1.0f));
}

TEST(Metadata, FallsBackWhereTheKeyIsMissing) {
  const Metadata m;
  EXPECT_EQ(m.get_int("layers", 0, 100, 7), 7);
  EXPECT_EQ(m.get_float("epsilon", 0.25), 0.25);
  EXPECT_TRUE(m.get_bool("tied", true));
  EXPECT_EQ(m.get_string("name", "none"), "none");
  EXPECT_THAT(m.get_strings("pieces"), IsEmpty());
  EXPECT_THAT(m.get_ints("types"), IsEmpty());
  EXPECT_THAT(m.get_floats("scores"), IsEmpty());
}

TEST(Metadata, NamesAMissingKeyAndTheFile) {
  Metadata m;
  m.set_origin("tiny.gguf");
  for (const std::string& message :
       {error_of([&] { (void)m.get_int("layers", 0, 1); }), error_of([&] { (void)m.get_float("layers"); }),
        error_of([&] { (void)m.get_string("layers"); })}) {
    EXPECT_THAT(message, AllOf(HasSubstr("tiny.gguf"), HasSubstr("layers"), HasSubstr("missing")));
  }
}

TEST(Metadata, NamesBothTypesWhereTheyDiffer) {
  const Metadata m = sample();
  EXPECT_THAT(error_of([&] { (void)m.get_int("name", 0, 1); }), HasSubstr("name is of type string, not an integer"));
  EXPECT_THAT(error_of([&] { (void)m.get_int("tied", 0, 1); }), HasSubstr("tied is of type bool, not an integer"));
  EXPECT_THAT(error_of([&] { (void)m.get_int("types", 0, 1, 0); }), HasSubstr("array of i32, not an integer"));
  EXPECT_THAT(error_of([&] { (void)m.get_float("layers"); }), HasSubstr("u32, not a float"));
  EXPECT_THAT(error_of([&] { (void)m.get_bool("layers", false); }), HasSubstr("u32, not a bool"));
  EXPECT_THAT(error_of([&] { (void)m.get_string("layers", ""); }), HasSubstr("u32, not a string"));
  EXPECT_THAT(error_of([&] { (void)m.get_strings("types"); }), HasSubstr("array of i32, not an array of strings"));
  EXPECT_THAT(error_of([&] { (void)m.get_ints("scores"); }), HasSubstr("array of f32, not an array of integers"));
  EXPECT_THAT(error_of([&] { (void)m.get_floats("layers"); }), HasSubstr("u32, not an array of floats"));
}

TEST(Metadata, RefusesIntegersOutsideTheRange) {
  Metadata m = sample();
  EXPECT_THAT(error_of([&] { (void)m.get_int("layers", 1, 11); }), HasSubstr("layers is 12, outside 1 to 11"));
  EXPECT_THAT(error_of([&] { (void)m.get_int("layers", 13, 20); }), HasSubstr("layers is 12, outside 13 to 20"));
  EXPECT_THAT(error_of([&] { (void)m.get_int("huge", 0, INT64_MAX); }), HasSubstr("18446744073709551615"));
  m.set("ids", {.type = MetadataType::array, .element = MetadataType::u64, .data = std::vector<int64_t>{1, -1}});
  EXPECT_THAT(error_of([&] { (void)m.get_ints("ids"); }), HasSubstr("18446744073709551615"));
}

TEST(Metadata, NumbersOfLayersMayBeOneOrAnArrayOfAnyIntegers) {
  Metadata m = sample();
  const auto of = [&](MetadataType element, std::vector<int64_t> data) {
    m.set("each", {.type = MetadataType::array, .element = element, .data = std::move(data)});
    return m.get_one_or_each("each", 0, 100);
  };
  EXPECT_THAT(m.get_one_or_each("layers", 0, 100), ElementsAre(12));
  EXPECT_THAT(m.get_one_or_each("tied", 0, 100), ElementsAre(1));
  for (const MetadataType type : {MetadataType::u8, MetadataType::i8, MetadataType::u16, MetadataType::i32,
                                  MetadataType::u64, MetadataType::i64, MetadataType::boolean}) {
    EXPECT_THAT(of(type, {1, 0, 1}), ElementsAre(1, 0, 1)) << name(type);
  }
  EXPECT_THAT(error_of([&] { of(MetadataType::i32, {1, -1}); }), HasSubstr("each is -1, outside 0 to 100"));
  EXPECT_THAT(error_of([&] { of(MetadataType::u64, {1, -1}); }), HasSubstr("18446744073709551615"));
  EXPECT_THAT(error_of([&] { (void)m.get_one_or_each("huge", 0, 100); }), HasSubstr("18446744073709551615"));
  EXPECT_THAT(error_of([&] { (void)m.get_one_or_each("scores", 0, 100); }), HasSubstr("array of f32"));
  EXPECT_THAT(error_of([&] { (void)m.get_one_or_each("name", 0, 100); }), HasSubstr("string, not an integer"));
}

TEST(Metadata, RefusesFloatsThatAreNotFinite) {
  Metadata m;
  m.set_float("epsilon", std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(error_of([&] { (void)m.get_float("epsilon"); }), HasSubstr("epsilon is not a finite number"));
}

TEST(Metadata, AddRefusesADuplicateWhereSetReplaces) {
  Metadata m = sample();
  EXPECT_THAT(error_of([&] { m.add("name", {}); }), AllOf(HasSubstr("name"), HasSubstr("twice")));
  m.set_string("name", "other");
  EXPECT_EQ(m.get_string("name"), "other");
  EXPECT_EQ(m.entries().size(), 8u);
  EXPECT_EQ(m.entries()[3].first, "name");
}

TEST(Metadata, IntegersTakeTheTypesThatOthersExpect) {
  Metadata m;
  m.set_int("small", 7);
  m.set_int("negative", -7);
  m.set_ints("types", {1, 2});
  m.set_ints("offsets", {int64_t{1} << 40});
  EXPECT_EQ(m.find("small")->type, MetadataType::u32);
  EXPECT_EQ(m.find("negative")->type, MetadataType::i64);
  EXPECT_EQ(m.find("types")->element, MetadataType::i32);
  EXPECT_EQ(m.find("offsets")->element, MetadataType::i64);
}

TEST(MetadataTest, ForgetsOneAndKeepsTheOthersInOrder) {
  Metadata m;
  m.set_int("a", 1);
  m.set_strings("b", {"x", "y"});
  m.set_int("c", 3);
  m.forget("b");
  m.forget("never there");
  EXPECT_FALSE(m.has("b"));
  EXPECT_EQ(m.get_int("a", 0, 9), 1);
  EXPECT_EQ(m.get_int("c", 0, 9), 3);
  ASSERT_EQ(m.entries().size(), 2u);
  EXPECT_EQ(m.entries()[1].first, "c");
  m.set_int("b", 2);
  EXPECT_EQ(m.get_int("b", 0, 9), 2);
}

}  // namespace
}  // namespace contexture
