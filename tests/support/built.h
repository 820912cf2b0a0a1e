#pragma once

#include <filesystem>
#include <string>

namespace contexture {

/// A file that was built beside this test. (No path is compiled in, so that a compiler cache serves any checkout.)
inline std::string built(const std::string& file) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / file).string();
}

inline std::string built_reference_backend() {
  return built("libcontexture_reference_backend.so");
}

/// A program, to be started: one of another machine through a script that calls the emulator.
inline std::string built_program(const std::string& name) {
#ifdef CONTEXTURE_EMULATED
  return built("tests/" + name);
#else
  return built(name);
#endif
}

inline std::string contexture_program() {
  return built_program("contexture");
}

}  // namespace contexture
