#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace contexture {

/// Parses JSON that a stranger wrote; `name` is the file's and `remedy` what mends a damaged one, for errors. Throws
/// Error (one line, with the byte where it went wrong) where it is no JSON, nests deeper than 64 levels, holds more
/// than four million values, or has a number too large to hold.
nlohmann::json parse_json(std::string_view text, const std::string& name,
                          std::string_view remedy = "download the file again");

/// The same with the keys of objects in the order in which they stand.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& name,
                                          std::string_view remedy = "download the file again");

}  // namespace contexture
