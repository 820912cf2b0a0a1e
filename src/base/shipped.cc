#include "base/shipped.h"

#include <dlfcn.h>
#include <link.h>

#include <filesystem>
#include <vector>

namespace contexture {
namespace {

namespace fs = std::filesystem;

/// Folders of what this code is part of: the shared library, if it is in one, and the program.
std::vector<fs::path> own_folders() {
  std::vector<fs::path> folders;
  std::error_code error;
  Dl_info info;
  link_map* loaded = nullptr;
  void* const here = reinterpret_cast<void*>(&shipped_model);
  // The program itself has no name there.
  if (dladdr1(here, &info, reinterpret_cast<void**>(&loaded), RTLD_DL_LINKMAP) != 0 && *loaded->l_name != '\0') {
    if (const fs::path library = fs::canonical(loaded->l_name, error); !error) folders.push_back(library.parent_path());
  }
  if (const fs::path program = fs::read_symlink("/proc/self/exe", error); !error) {
    folders.push_back(program.parent_path());
  }
  return folders;
}

std::vector<fs::path> candidates(std::initializer_list<const char*> from_own, std::string_view file) {
  std::vector<fs::path> paths;
  for (const fs::path& folder : own_folders()) {
    for (const char* way : from_own) paths.push_back((folder / way / file).lexically_normal());
  }
  return paths;
}

std::string first_that_exists(const std::vector<fs::path>& paths, std::string otherwise) {
  std::error_code ignored;
  for (const fs::path& path : paths) {
    if (fs::exists(path, ignored)) return path.string();
  }
  return otherwise;
}

}  // namespace

std::string shipped_model(std::string_view file) {
  const auto paths = candidates({CONTEXTURE_MODELS_FROM_PROGRAM, CONTEXTURE_MODELS_FROM_LIBRARY, "../models"}, file);
  return first_that_exists(paths, paths.empty() ? std::string(file) : paths[0].string());
}

std::string shipped_library(std::string_view file) {
  return first_that_exists(candidates({".", "../lib", CONTEXTURE_LIBRARIES_FROM_PROGRAM}, file), std::string(file));
}

}  // namespace contexture
