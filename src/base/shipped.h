#pragma once

#include <string>
#include <string_view>

namespace contexture {

/// Where a file of models/ is: <prefix>/share/contexture/models of an installed program or library, or models/ beside
/// the build folder. Where it is in neither, the first place to look.
std::string shipped_model(std::string_view file);

/// The path of a library that is loaded by name: beside the program or this library, or where the prefix has its
/// libraries. Where it is in neither, the bare name, which dlopen looks for.
std::string shipped_library(std::string_view file);

}  // namespace contexture
