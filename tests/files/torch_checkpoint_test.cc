#include "files/torch_checkpoint.h"

#include <gmock/gmock.h>

#include "files/torch_support.h"
#include "support/allocations.h"
#include "tensor/float16.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string torch_error(std::span<const std::byte> bytes) {
  return error_of([&] { (void)TorchCheckpoint(bytes, "m.pth"); });
}

std::vector<float> floats(const StoredTensor& tensor) {
  std::vector<float> values(tensor.data.size() / bytes_of(tensor.format, 1));
  info(tensor.format).decode(tensor.data.data(), values.data(), values.size());
  return values;
}

TEST(TorchCheckpoint, TensorsAreUsedInPlace) {
  const Bytes bytes = CheckpointWriter().add("a", {2, 2}, 10).add("b", {3}, 20).bytes();
  EXPECT_TRUE(is_torch_checkpoint(bytes));
  const TorchCheckpoint checkpoint(bytes, "m.pth");
  EXPECT_EQ(checkpoint.tensors().size(), 2u);
  const StoredTensor a = checkpoint.stored("a", "A");
  EXPECT_EQ(a.name, "A");
  EXPECT_EQ(a.format, Format::f32);
  EXPECT_THAT(a.shape, ElementsAre(2, 2));
  EXPECT_THAT(floats(a), ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(floats(checkpoint.stored("b", "B")), ElementsAre(20, 21, 22));
  const std::span<const std::byte> all = bytes;
  EXPECT_GT(a.data.data(), all.data());
  EXPECT_LT(a.data.data(), all.data() + all.size());
}

TEST(TorchCheckpoint, TensorsMayShareAStorage) {
  Bytes data;
  for (int i = 0; i < 6; ++i) data.number(static_cast<float>(i));
  const Bytes bytes = CheckpointWriter()
                          .storage("s", data)
                          .add_tensor("all", {.key = "s", .shape = {2, 3}, .strides = {}})
                          .add_tensor("row", {.key = "s", .shape = {1, 3}, .strides = {99, 1}, .offset = 3})
                          .bytes();
  const TorchCheckpoint checkpoint(bytes, "m.pth");
  EXPECT_THAT(floats(checkpoint.stored("row", "r")), ElementsAre(3, 4, 5));
  EXPECT_EQ(checkpoint.stored("all", "a").data.data() + 12, checkpoint.stored("row", "r").data.data());
}

TEST(TorchCheckpoint, HalvesAreReadAndOtherTypesNamed) {
  CheckpointWriter writer;
  writer.storage("0", Bytes().number(f32_to_f16(1.5f)).number(f32_to_f16(-2.f)).zeros(12));
  writer.storage("1", Bytes().number(f32_to_bf16(0.5f)));
  writer.add_tensor("half", {.key = "0", .shape = {2}, .strides = {}, .type = "HalfStorage"});
  writer.add_tensor("brain", {.key = "1", .shape = {1}, .strides = {}, .type = "BFloat16Storage"});
  writer.add_tensor("double", {.key = "0", .shape = {2}, .strides = {}, .type = "DoubleStorage"});
  writer.add_tensor("byte", {.key = "0", .shape = {2}, .strides = {}, .type = "ByteStorage"});
  const Bytes bytes = writer.bytes();
  const TorchCheckpoint checkpoint(bytes, "m.pth");
  EXPECT_THAT(floats(checkpoint.stored("half", "")), ElementsAre(1.5, -2));
  EXPECT_THAT(floats(checkpoint.stored("brain", "")), ElementsAre(0.5));
  const auto error = [&](const char* name) { return error_of([&] { (void)checkpoint.stored(name, ""); }); };
  EXPECT_THAT(error("double"), AllOf(HasSubstr("m.pth: tensor double"), HasSubstr("torch.DoubleStorage")));
  EXPECT_THAT(error("byte"), HasSubstr("torch.ByteStorage"));
}

TEST(TorchCheckpoint, RefusesTensorsThatAreNotWhole) {
  CheckpointWriter writer;
  writer.storage("s", Bytes().zeros(24));
  writer.add_tensor("transposed", {.key = "s", .shape = {2, 3}, .strides = {1, 2}});
  writer.add_tensor("strided", {.key = "s", .shape = {3}, .strides = {2}});
  writer.add_tensor("repeated", {.key = "s", .shape = {6}, .strides = {0}});
  writer.add_tensor("few strides", {.key = "s", .shape = {2, 3}, .strides = {1}});
  writer.add_tensor("long", {.key = "s", .shape = {7}, .strides = {}});
  writer.add_tensor("late", {.key = "s", .shape = {6}, .strides = {}, .offset = 1});
  writer.add_tensor("before", {.key = "s", .shape = {1}, .strides = {}, .offset = -1});
  writer.add_tensor("huge", {.key = "s", .shape = {INT32_MAX, INT32_MAX, 4, 1}, .strides = {}});
  writer.add_tensor("none", {.key = "s", .shape = {0}, .strides = {}});
  writer.add_tensor("number", {.key = "s", .shape = {}, .strides = {}});
  writer.add_tensor("negative", {.key = "s", .shape = {-2}, .strides = {}});
  writer.add_tensor("missing", {.key = "../data.pkl", .shape = {1}, .strides = {}});
  const Bytes bytes = writer.bytes();
  const TorchCheckpoint checkpoint(bytes, "m.pth");
  const auto error = [&](const char* name) { return error_of([&] { (void)checkpoint.stored(name, ""); }); };
  for (const char* name : {"transposed", "strided", "repeated", "few strides"}) {
    EXPECT_THAT(error(name), HasSubstr("contiguous")) << name;
  }
  for (const char* name : {"long", "late", "before"}) EXPECT_THAT(error(name), HasSubstr("24 bytes")) << name;
  EXPECT_NE(error("huge"), "");
  for (const char* name : {"none", "number", "negative"}) EXPECT_THAT(error(name), HasSubstr("shape")) << name;
  EXPECT_THAT(error("missing"), HasSubstr("is missing"));
}

TEST(TorchCheckpoint, RefusesCompressedStorages) {
  const std::vector<char> pickle = [] {
    PickleWriter p;
    CheckpointWriter().add_tensor("t", {.key = "0", .shape = {2}, .strides = {}}).write_tensors(p);
    return p.finish();
  }();
  const auto error = [&](ZipWriter::Entry storage) {
    ZipWriter zip;
    zip.add("x/data.pkl", std::as_bytes(std::span(pickle))).add(std::move(storage));
    const Bytes bytes = zip.bytes();
    return error_of([&] { (void)TorchCheckpoint(bytes, "m.pth").stored("t", "t"); });
  };
  const std::vector<std::byte> eight(8);
  EXPECT_EQ(error({.name = "x/data/0", .data = eight}), "");
  EXPECT_THAT(error({.name = "x/data/0", .data = eight, .method = 8}),
              AllOf(HasSubstr("x/data/0"), HasSubstr("compressed"), HasSubstr("torch.save")));
  EXPECT_THAT(error({.name = "x/data/0", .data = eight, .said_size = 1 << 30}), HasSubstr("cut off"));
  EXPECT_THAT(error({.name = "x/data/0", .data = eight, .said_size = 4}), HasSubstr("4 bytes"));
  // Two bytes off an element's place.
  const std::string odd = error({.name = "x/data/00", .data = eight});
  EXPECT_THAT(odd, HasSubstr("data/0 is missing"));
}

TEST(TorchCheckpoint, RefusesUnalignedStorages) {
  ZipWriter zip;
  PickleWriter pickle;
  CheckpointWriter().add_tensor("t", {.key = "0", .shape = {1}, .strides = {}}).write_tensors(pickle);
  const std::vector<char> bytes = pickle.finish();
  zip.add("x/data.pkl", std::as_bytes(std::span(bytes)));
  // The name's length puts the data at an odd place, as nothing is filled up.
  zip.add({.name = "x/pad", .data = std::vector<std::byte>(1), .alignment = 64});
  zip.add({.name = "x/data/0", .data = std::vector<std::byte>(4), .alignment = 1});
  const Bytes file = zip.bytes();
  const TorchCheckpoint checkpoint(file, "m.pth");
  EXPECT_THAT(error_of([&] { (void)checkpoint.stored("t", "t"); }), HasSubstr("multiple of its elements"));
}

TEST(TorchCheckpoint, APickleIsCheckedBeforeItIsRead) {
  const auto error = [](ZipWriter::Entry pickle) { return torch_error(ZipWriter().add(std::move(pickle)).bytes()); };
  const std::vector<char> small = PickleWriter().op('}').finish();
  const auto as_bytes = std::as_bytes(std::span(small));
  const std::vector<std::byte> data(as_bytes.begin(), as_bytes.end());
  EXPECT_THAT(error({.name = "a/data.pkl", .data = data}), HasSubstr("no tensors"));
  EXPECT_THAT(error({.name = "a/data.pkl", .data = data, .method = 8, .said_size = 1 << 30}), HasSubstr("compressed"));
  EXPECT_THAT(error({.name = "a/data.pkl", .data = data, .said_size = 1 << 30}), HasSubstr("cut off"));
  EXPECT_THAT(error({.name = "a/data.pkl", .data = data, .crc_change = 1}), HasSubstr("checksum"));
  EXPECT_THAT(error({.name = "a/data.pkl", .data = {}}), HasSubstr("cut off"));
  EXPECT_THAT(error({.name = "a/b/data.pkl", .data = data}), HasSubstr("without data.pkl"));
  EXPECT_THAT(error({.name = "a/constants.pkl", .data = data}), HasSubstr("without data.pkl"));
}

TEST(TorchCheckpoint, ALargePickleIsNotRead) {
  const std::vector<std::byte> data((64 << 20) + 1);
  const Bytes bytes = ZipWriter().add("a/data.pkl", data).bytes();
  const AllocationWatch watch;
  EXPECT_THAT(torch_error(bytes), HasSubstr("more than 67108864"));
  EXPECT_LE(watch.peak(), size_t{1} << 20);
}

TEST(TorchCheckpoint, RefusesOtherFiles) {
  EXPECT_FALSE(is_torch_checkpoint(Bytes().raw("GGUF").zeros(20)));
  EXPECT_FALSE(is_torch_checkpoint({}));
  EXPECT_THAT(torch_error(Bytes().raw("GGUF").zeros(20)), HasSubstr("no PyTorch checkpoint"));
  EXPECT_THAT(torch_error(Bytes().raw("PK\3\4").zeros(100)), AllOf(HasSubstr("m.pth"), HasSubstr("no whole zip file")));
  const Bytes old = Bytes().raw("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19").raw(".\x80\x02");
  EXPECT_TRUE(is_torch_checkpoint(old));
  EXPECT_THAT(torch_error(old), HasSubstr("before 1.6"));
  const Bytes big_endian = CheckpointWriter().add("t", {1}).zip().add("archive/byteorder", Bytes().raw("big")).bytes();
  EXPECT_THAT(torch_error(big_endian), HasSubstr("big-endian"));
  const Bytes little = CheckpointWriter().add("t", {1}).zip().add("archive/byteorder", Bytes().raw("little")).bytes();
  EXPECT_EQ(torch_error(little), "");
  PickleWriter list;
  list.op(']');
  EXPECT_THAT(torch_error(CheckpointWriter().zip(list.finish()).bytes()), HasSubstr("no dictionary"));
  EXPECT_THAT(torch_error(CheckpointWriter().add("_orig_mod.t", {1}).add("t", {1}).bytes()),
              HasSubstr("t is there twice"));
}

TEST(TorchCheckpoint, AHostilePickleIsRefusedInAFileToo) {
  PickleWriter evil;
  evil.global("os", "system").text("true").op(0x85).op('R');
  EXPECT_THAT(torch_error(CheckpointWriter().zip(evil.finish()).bytes()),
              AllOf(HasSubstr("m.pth"), HasSubstr("os.system")));
}

/// As llama2.c's train.py writes it.
Bytes training_checkpoint() {
  CheckpointWriter writer;
  writer.add("_orig_mod.norm.weight", {2}, 7);
  PickleWriter pickle;
  pickle.op('}').op('(').text("model");
  writer.write_tensors(pickle);
  writer.storage("moment", Bytes().zeros(8));
  pickle.text("optimizer").op('}').text("state").op('}').integer(0).op('}').text("exp_avg");
  pickle.tensor({.key = "moment", .shape = {2}, .strides = {}}).op('s').op('s').op('s');
  pickle.text("model_args").op('}').op('(').text("dim").integer(2).text("norm_eps").op('G');
  pickle.raw(std::string("\x3f\xe0\0\0\0\0\0\0", 8)).text("flash").op(0x88).text("n_kv_heads").op('N');
  pickle.text("name").text("stories").text("list").op(']').op('u');
  pickle.text("iter_num").integer(100).op('u');
  return writer.zip(pickle.finish()).bytes();
}

TEST(TorchCheckpoint, FindsTheModelInATrainersCheckpoint) {
  const Bytes bytes = training_checkpoint();
  const TorchCheckpoint checkpoint(bytes, "m.pt");
  ASSERT_EQ(checkpoint.tensors().size(), 1u);
  EXPECT_THAT(floats(checkpoint.stored("norm.weight", "n")), ElementsAre(7, 8));
  const JsonObject arguments = checkpoint.arguments();
  EXPECT_EQ(arguments.get_int("dim", 0, 10), 2);
  EXPECT_EQ(arguments.get_number("norm_eps"), 0.5);
  EXPECT_TRUE(arguments.get_bool("flash", false));
  EXPECT_FALSE(arguments.has("n_kv_heads"));
  EXPECT_FALSE(arguments.has("list"));
  EXPECT_EQ(arguments.get_string("name", ""), "stories");
  EXPECT_FALSE(TorchCheckpoint(CheckpointWriter().add("t", {1}).bytes(), "m").arguments().has("dim"));
}

TEST(TorchCheckpoint, ATextOfManyNamesIsNotCopied) {
  CheckpointWriter writer;
  writer.add("t", {1});
  PickleWriter pickle;
  pickle.op('}').op('(').text("model");
  writer.write_tensors(pickle);
  pickle.text("model_args").op('}').op('(').text("dim").integer(3);
  pickle.text("x").text(std::string(1 << 16, 'x')).op('q', uint8_t{1});
  for (int i = 0; i < 10000; ++i) pickle.text(fmt::format("{}", i)).op('h', uint8_t{1});
  const Bytes bytes = writer.zip(pickle.op('u').op('u').finish()).bytes();
  const TorchCheckpoint checkpoint(bytes, "m.pt");
  const AllocationWatch watch;
  EXPECT_EQ(checkpoint.arguments().value().size(), 1u);
  EXPECT_LE(watch.peak(), size_t{1} << 20);
}

/// Opens and reads all tensors, or is refused.
bool torch_opens_or_is_refused(std::span<const std::byte> bytes) {
  try {
    const TorchCheckpoint checkpoint(bytes, "m.pth");
    volatile unsigned sum = 0;
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      for (const std::byte byte : checkpoint.stored(name, name).data) sum = sum + static_cast<unsigned>(byte);
    }
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
    return false;
  }
}

TEST(TorchCheckpointDamage, CutOffAtEveryByteIsRefused) {
  const Bytes whole = training_checkpoint();
  const std::span<const std::byte> bytes = whole;
  ASSERT_TRUE(torch_opens_or_is_refused(bytes));
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    ASSERT_FALSE(torch_opens_or_is_refused(cut)) << "at byte " << size;
  }
}

TEST(TorchCheckpointDamage, ManyValuesOfEveryByteOpenOrAreRefused) {
  Bytes bytes = training_checkpoint();
  for (size_t place = 0; place < bytes.size(); ++place) {
    const std::byte right = bytes[place];
    for (const unsigned value : {0u, 1u, 8u, 0x7fu, 0x80u, 0xfeu, 0xffu}) {
      bytes[place] = static_cast<std::byte>(value);
      torch_opens_or_is_refused(bytes);
      ASSERT_FALSE(HasFailure()) << "byte " << place << " set to " << value;
    }
    bytes[place] = right;
  }
}

}  // namespace
}  // namespace contexture
