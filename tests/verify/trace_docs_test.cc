// The NumPy program in docs/traces.md, run as it stands there.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cache/layout.h"
#include "verify/traced_run.h"

namespace contexture {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string program_in(const std::string& page) {
  const std::string text = text_of(page), fence = "```python\n";
  const size_t begin = text.find(fence) + fence.size();
  return text.substr(begin, text.find("```", begin) - begin);
}

class TraceDocs : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) {
      GTEST_SKIP() << "no NumPy for /usr/bin/python3 (Debian: python3-numpy)";
    }
    std::ofstream(program.path()) << program_in("docs/traces.md");
  }

  std::string output(const std::string& trace) {
    const TemporaryFile out(".txt");
    const std::string command = "/usr/bin/python3 " + program.path() + " " + trace + " >" + out.path() + " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << text_of(out.path());
    return text_of(out.path());
  }

  const TemporaryFile program{".py"};
};

TEST_F(TraceDocs, TheNumpyProgramDoesTheSameCheck) {
  EXPECT_LE(std::ranges::count(text_of(program.path()), '\n'), 30);
  RandomModel model{.family = "gemma2", .dim = 64, .heads = 4, .kv_heads = 2, .head_dim = 32, .window = 100};
  model.score_cap = 5;
  RunOptions options;
  options.threads = 2;
  for (const std::string_view layout : {"paged", "mixed"}) {
    options.cache.layout = layout;
    options.cache.options = own_options(layout, {{"hot_tokens", 16}});
    options.cache.shape.k_format = layout == "paged" ? Format::f32 : Format::bf16;
    options.cache.shape.v_format = layout == "paged" ? Format::q8_0 : Format::f16;
    const TemporaryFile trace;
    write_traced_run(model, options, 300, trace.path());
    const std::string right = output(trace.path());
    EXPECT_EQ(std::ranges::count(right, '\n'), 12) << right;
    EXPECT_THAT(right, Not(HasSubstr("WRONG")));
    EXPECT_THAT(right, HasSubstr("blk.1.step.5.seq.0."));

    TraceCopy copy(trace.path());
    const std::span<float> out = copy.values<float>("blk.1.step.4.seq.0.out");
    std::swap_ranges(out.begin(), out.begin() + 32, out.begin() + 32);  // two heads
    copy.write(trace.path());
    const std::string wrong = output(trace.path());
    const size_t at = wrong.find("WRONG");
    ASSERT_NE(at, std::string::npos) << wrong;
    EXPECT_THAT(wrong.substr(0, at), HasSubstr("blk.1.step.4.seq.0."));
    EXPECT_EQ(wrong.find("WRONG", at + 1), std::string::npos) << "that one alone";
  }
}

}  // namespace
}  // namespace contexture
