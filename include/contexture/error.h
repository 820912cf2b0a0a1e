#pragma once

#include <stdexcept>

namespace contexture {

/// What stops the work: a corrupt file, an impossible plan. The message says what, where and how to mend it, on one
/// line. Expected outcomes are returned instead, mistakes of the program are assertions (docs/architecture.md,
/// "Errors").
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace contexture
