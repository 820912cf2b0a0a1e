// The house's order (docs/architecture.md): an include that points up, or sideways to a room further down the list, is
// a bug.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace {

/// From the ground up. A room is a folder of src/; what lies in none of these has no floor.
const std::vector<std::string> kRooms = {"base",
                                         "jinja",
                                         "tensor",
                                         "files",
                                         "text",
                                         "chat",
                                         "kernels",
                                         "sampling",
                                         "cache",
                                         "model",
                                         "backends",
                                         "backends/cpu",
                                         "backends/static_graph",
                                         "backends/ring",
                                         "engine",
                                         "api",
                                         "verify",
                                         "cli"};

/// The floor of a path below src/: of the longest room that it lies in; 0 where it is in none.
size_t floor_of(const std::string& path) {
  size_t floor = 0;
  for (size_t i = 0; i < kRooms.size(); ++i) {
    if (path.starts_with(kRooms[i] + "/") && (floor == 0 || kRooms[i].size() > kRooms[floor - 1].size())) floor = i + 1;
  }
  return floor;
}

TEST(Floors, NoIncludePointsUp) {
  const std::regex include("^#include \"([a-z_]+/[^\"]+)\"");
  size_t checked = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("src")) {
    if (!entry.is_regular_file() || (entry.path().extension() != ".h" && entry.path().extension() != ".cc")) continue;
    const std::string path = std::filesystem::relative(entry.path(), "src").generic_string();
    const size_t here = floor_of(path);
    ASSERT_GT(here, 0u) << path << " has no floor; say in docs/architecture.md and here where it stands";
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const size_t other = floor_of(match[1].str());
      if (other == 0) continue;  // hwy, contexture
      EXPECT_LE(other, here) << path << ": " << line;
      ++checked;
    }
  }
  EXPECT_GT(checked, 100u);
}

/// What programs see stands by itself: its headers include each other, in one order, and nothing of the house.
TEST(Floors, PublicHeadersIncludeNothingOfTheHouse) {
  const std::vector<std::string> order = {
      "export",        "error", "log",    "sampling",     "options",           "generation", "machine",
      "graph_backend", "model", "engine", "conversation", "llm_decode_runner", "contexture"};
  const auto place = [&](const std::string& header) { return std::ranges::find(order, header) - order.begin(); };
  const std::regex include("^#include \"([^\"]+)\"");
  for (const auto& entry : std::filesystem::directory_iterator("include/contexture")) {
    const auto here = place(entry.path().stem().string());
    ASSERT_LT(here, std::ssize(order)) << entry.path() << " has no place; say here where it stands";
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const std::filesystem::path other = match[1].str();
      EXPECT_EQ(other.parent_path(), "contexture") << entry.path() << ": " << line;
      EXPECT_LT(place(other.stem().string()), here) << entry.path() << ": " << line;
    }
  }
}

}  // namespace
