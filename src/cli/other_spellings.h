#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace contexture::cli {

/// Arguments as CLI11 is to read them. Spellings of llama.cpp's users are replaced by ours; of their flags that mean
/// nothing here each gets a line on stderr and is left out. Throws CLI::ParseError, with the flag's name, for those
/// that cannot be followed, and for a flag of several letters behind one dash that nobody knows: CLI11 would read -ngl
/// as -n with the value "gl".
std::vector<std::string> with_known_spellings(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace contexture::cli
