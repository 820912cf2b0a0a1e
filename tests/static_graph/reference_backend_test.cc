// The reference backend through its C interface, as a stranger might use it: what is wrong is refused with a line, and
// nothing is written before all is right.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "backends/static_graph/graph_backend.h"
#include "base/mapped_file.h"
#include "static_graph/compiled_model.h"
#include "support/built.h"

namespace contexture {
namespace {

using ::testing::HasSubstr;

class ReferenceBackend : public ::testing::Test {
 protected:
  ReferenceBackend()
      : backend_(GraphBackend::load(built_reference_backend())),
        api_(backend_.table()),
        model_(file_of(source_), task()),
        bytes_(model_.path() + "/forward_0.bin") {
    const cxg_config config{.threads = 2, .log_level = 0, .options = ""};
    EXPECT_EQ(api_.open_device(&config, &device_, &error_), 0) << error_.text;
    EXPECT_EQ(api_.create_context(device_, bytes_.bytes().data(), bytes_.bytes().size(), &context_, &error_), 0)
        << error_.text;
  }
  ~ReferenceBackend() override {
    api_.free_context(context_);
    api_.close_device(device_);
  }

  static ModelFile file_of(const TemporaryFile& path) {
    write_random_model({}, path.path());
    return open_model(path.path());
  }
  static CompileTask task() { return {.out = {}, .context = 16, .prefill_length = 4, .recipe = {}}; }

  const cxg_graph& graph(uint32_t i = 0) const { return *api_.graph(context_, i); }
  static uint64_t bytes_of_tensor(const cxg_tensor& t) {
    uint64_t n = 4;
    for (uint32_t i = 0; i < t.rank; ++i) n *= t.dims[i];
    return n;
  }
  /// Binds everything to memory of its own, zeros.
  void bind_all() {
    for (const uint32_t direction : {CXG_INPUT, CXG_OUTPUT}) {
      const uint32_t count = direction == CXG_INPUT ? graph().input_count : graph().output_count;
      for (uint32_t i = 0; i < count; ++i) {
        const cxg_tensor& t = direction == CXG_INPUT ? graph().inputs[i] : graph().outputs[i];
        memory_.emplace_back(bytes_of_tensor(t));
        EXPECT_EQ(bind(direction, i, memory_.back().data(), bytes_of_tensor(t)), 0) << error_.text;
      }
    }
  }
  int bind(uint32_t direction, uint32_t tensor, void* data, uint64_t bytes) {
    const cxg_buffer buffer{.memory = nullptr, .data = data, .bytes = bytes};
    return api_.bind(context_, 0, direction, tensor, &buffer, &error_);
  }
  uint32_t input_named(const char* name) const {
    for (uint32_t i = 0; i < graph().input_count; ++i) {
      if (std::strcmp(graph().inputs[i].name, name) == 0) return i;
    }
    return UINT32_MAX;
  }

  TemporaryFile source_;
  GraphBackend backend_;
  const cxg_backend& api_;
  CompiledModel model_;
  MappedFile bytes_;
  cxg_error error_ = {};
  cxg_device* device_ = nullptr;
  cxg_context* context_ = nullptr;
  std::vector<std::vector<char>> memory_;
};

TEST_F(ReferenceBackend, ExecutesWhatIsWhole) {
  EXPECT_EQ(api_.graph_count(context_), 2u);
  EXPECT_STREQ(graph(0).name, "prefill_forward");
  EXPECT_STREQ(graph(1).name, "kv_forward");
  EXPECT_EQ(api_.graph(context_, 2), nullptr);
  bind_all();
  EXPECT_EQ(api_.execute(context_, 0, &error_), 0) << error_.text;
  cxg_timings timings;
  EXPECT_EQ(api_.timings(context_, 0, &timings, &error_), 0);
  EXPECT_EQ(timings.executions, 1u);
  EXPECT_GE(timings.total_nanoseconds, timings.last_nanoseconds);
}

TEST_F(ReferenceBackend, RefusesWhatIsNotBound) {
  EXPECT_NE(api_.execute(context_, 0, &error_), 0);
  EXPECT_THAT(error_.text, HasSubstr("is not bound"));
}

TEST_F(ReferenceBackend, RefusesTokensBeyondTheVocabulary) {
  bind_all();
  int32_t* const tokens = reinterpret_cast<int32_t*>(memory_[input_named("tokens")].data());
  for (const int32_t bad : {80, -1}) {
    tokens[2] = bad;
    EXPECT_NE(api_.execute(context_, 0, &error_), 0);
    EXPECT_THAT(error_.text, HasSubstr("tokens[2] is " + std::to_string(bad)));
  }
}

TEST_F(ReferenceBackend, RefusesBuffersThatDoNotFit) {
  bind_all();
  const cxg_tensor& mask = graph().inputs[input_named("atten_mask")];
  std::vector<char> memory(bytes_of_tensor(mask) + 1);
  EXPECT_NE(bind(CXG_INPUT, input_named("atten_mask"), memory.data(), bytes_of_tensor(mask) - 1), 0);
  EXPECT_THAT(error_.text, HasSubstr("atten_mask"));
  EXPECT_NE(bind(CXG_INPUT, input_named("atten_mask"), memory.data() + 1, bytes_of_tensor(mask)), 0);
  EXPECT_THAT(error_.text, HasSubstr("misaligned"));
  EXPECT_NE(bind(CXG_INPUT, 1000, memory.data(), memory.size()), 0);
  EXPECT_NE(bind(7, 0, memory.data(), memory.size()), 0);
  EXPECT_NE(bind(CXG_INPUT, 0, nullptr, 1000), 0);
  // An output over an input, and over another output.
  ASSERT_EQ(bind(CXG_OUTPUT, 1, memory_[input_named("atten_mask")].data(), 1 << 20), 0);
  EXPECT_NE(api_.execute(context_, 0, &error_), 0);
  EXPECT_THAT(error_.text, HasSubstr("overlaps"));
}

TEST_F(ReferenceBackend, RegisteredViewsHaveTheTensorsShape) {
  void* block = nullptr;
  const uint32_t mask = input_named("atten_mask");
  ASSERT_EQ(api_.allocate(device_, 4096, &block, &error_), 0);
  const auto register_view = [&](cxg_view view, cxg_memory** memory) {
    return api_.register_memory(context_, &view, memory, &error_);
  };
  cxg_memory* good = nullptr;
  cxg_memory* other = nullptr;
  const uint32_t dims[] = {1, 1, 4, 16}, wrong[] = {1, 1, 16, 4}, large[] = {1u << 31, 1u << 31};
  ASSERT_EQ(register_view({block, 256, CXG_FLOAT_32, 4, dims}, &good), 0) << error_.text;
  ASSERT_EQ(register_view({block, 256, CXG_FLOAT_32, 4, wrong}, &other), 0) << error_.text;
  const auto bind_memory = [&](cxg_memory* memory) {
    const cxg_buffer buffer{.memory = memory, .data = nullptr, .bytes = 0};
    return api_.bind(context_, 0, CXG_INPUT, mask, &buffer, &error_);
  };
  EXPECT_EQ(bind_memory(good), 0) << error_.text;
  EXPECT_NE(bind_memory(other), 0);
  EXPECT_THAT(error_.text, HasSubstr("another type or shape"));
  cxg_memory* none = nullptr;
  EXPECT_NE(register_view({block, 4096 - 252, CXG_FLOAT_32, 4, dims}, &none), 0);
  EXPECT_NE(register_view({block, 0, CXG_FLOAT_32, 2, large}, &none), 0);
  EXPECT_NE(register_view({block, UINT64_MAX, CXG_FLOAT_32, 4, dims}, &none), 0);
  EXPECT_NE(register_view({&none, 0, CXG_FLOAT_32, 4, dims}, &none), 0);
  EXPECT_NE(register_view({block, 0, 99, 4, dims}, &none), 0);
  api_.deregister_memory(context_, other);
  EXPECT_NE(bind_memory(other), 0);
  EXPECT_THAT(error_.text, HasSubstr("not registered"));
}

TEST_F(ReferenceBackend, RefusesOtherBytesAndDevices) {
  cxg_context* none = nullptr;
  EXPECT_NE(api_.create_context(device_, "nothing", 7, &none, &error_), 0);
  EXPECT_THAT(error_.text, HasSubstr("not a compiled shard"));
  cxg_device* device = nullptr;
  const cxg_config no_threads{.threads = 0, .log_level = 0, .options = ""};
  EXPECT_NE(api_.open_device(&no_threads, &device, &error_), 0);
  const cxg_config options{.threads = 1, .log_level = 0, .options = "turbo"};
  EXPECT_NE(api_.open_device(&options, &device, &error_), 0);
  EXPECT_EQ(device, nullptr);
}

}  // namespace
}  // namespace contexture
