// Programs that were written for the multi-context runner: the one that its guide shows compiles against
// contexture/llm_decode_runner.h with nothing changed but the include.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "support/random_model.h"

namespace contexture {
namespace {

/// The first block of C++ with a `main` in a Markdown file; empty where there is none.
std::string program_in(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::string fence = "```";
  for (size_t at = text.find(fence + "cpp"); at != std::string::npos; at = text.find(fence + "cpp", at + 1)) {
    const size_t begin = text.find('\n', at), end = text.find(fence, begin);
    const std::string block = text.substr(begin, end - begin);
    if (block.find("int main(") != std::string::npos) return block;
  }
  return "";
}

/// The guide lies beside the project, where it was written down; it is not part of it.
std::string guides_program() {
  const std::filesystem::path folder = "../shared/origin";
  if (!std::filesystem::is_directory(folder)) return "";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.path().filename().string().starts_with("000_")) continue;
    if (std::string program = program_in(entry.path()); !program.empty()) return program;
  }
  return "";
}

TEST(DecodeRunnerPrograms, TheGuidesMainCompiles) {
  std::string program = guides_program();
  if (program.empty()) GTEST_SKIP() << "the guide is not here";
  const std::string include = "#include \"llm_decode_runner.h\"";
  const size_t at = program.find(include);
  ASSERT_NE(at, std::string::npos);
  program.replace(at, include.size(), "#include \"contexture/llm_decode_runner.h\"");

  const TemporaryFile source(".cc"), log(".log");
  const auto status_of = [&](const std::string& text) {
    std::ofstream(source.path()) << text;
    const std::string command = "'" CONTEXTURE_CXX "' -std=c++20 -Wall -Wextra -Werror -fsyntax-only -I include '" +
                                source.path() + "' 2>'" + log.path() + "'";
    return std::system(command.c_str());
  };
  EXPECT_EQ(status_of(program), 0) << std::ifstream(log.path()).rdbuf();
  // And it would be seen if it did not.
  const size_t call = program.find("get_error");
  ASSERT_NE(call, std::string::npos);
  EXPECT_NE(status_of(program.replace(call, 9, "get_errors")), 0);
}

}  // namespace
}  // namespace contexture
