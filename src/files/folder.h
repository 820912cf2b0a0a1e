#pragma once

#include <filesystem>
#include <span>
#include <string_view>

// Inside src/files alone: what the readers of folders share.

namespace contexture {

/// A tensor's name, or a part of it, in a file's own vocabulary and in GGUF's.
struct TensorName {
  std::string_view theirs, gguf;
};

/// GGUF's name; empty where there is none.
std::string_view look_up(std::span<const TensorName> names, std::string_view theirs);

bool take_prefix(std::string_view& text, std::string_view prefix);

/// Takes "12." off the front and returns "12"; takes nothing and returns "" where there is no such number, or one of
/// more than six digits or with zeros before it.
std::string_view take_number(std::string_view& text);

bool is_file(const std::filesystem::path& path);
bool is_folder(const std::filesystem::path& path);
/// The path itself where it is a folder, else the folder that it lies in.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace contexture
