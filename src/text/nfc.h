#pragma once

#include <string>
#include <string_view>

namespace contexture {

/// Unicode's Normalization Form C ("e" and U+0301 become "é"). Bytes that are not UTF-8 stay as they are.
std::string nfc(std::string_view text);

}  // namespace contexture
