// The house's order (docs/architecture.md): an include that points up, or sideways to a room further down the list, is
// a bug.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <string>

namespace {

const std::map<std::string, int> kOrder = {
    {"base", 1},  {"jinja", 2}, {"tensor", 3},        {"files", 4}, {"text", 5},    {"chat", 6},    {"kernels", 7},
    {"cache", 8}, {"model", 9}, {"static_graph", 10}, {"ring", 11}, {"engine", 12}, {"verify", 13}, {"cli", 14}};

TEST(Floors, NoIncludePointsUp) {
  const std::regex include("^#include \"([a-z_]+)/[^\"]+\"");
  size_t checked = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("src")) {
    if (!entry.is_regular_file() || (entry.path().extension() != ".h" && entry.path().extension() != ".cc")) continue;
    const std::string room = std::next(entry.path().begin())->string();
    ASSERT_TRUE(kOrder.contains(room)) << room << " has no floor; say in docs/architecture.md and here where it stands";
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const auto other = kOrder.find(match[1].str());
      if (other == kOrder.end()) continue;  // hwy, contexture
      EXPECT_LE(other->second, kOrder.at(room)) << entry.path() << ": " << line;
      ++checked;
    }
  }
  EXPECT_GT(checked, 100u);
}

}  // namespace
