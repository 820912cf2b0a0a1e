#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "contexture/export.h"

namespace contexture {

/// Whose fault it is, and what a host tells its client (the HTTP status of each).
enum class ErrorKind : uint8_t {
  invalid,    ///< what was asked makes no sense, or names what is not there (400)
  too_long,   ///< the prompt has more tokens than the context holds; the message says both numbers (413, or 400)
  conflict,   ///< something else is done with it just now (409)
  busy,       ///< there is no room now; try again later (429)
  closed,     ///< the engine has been closed, or has failed for good (503)
  damaged,    ///< a session file is not what it should be (500, or 400 where the client sent it)
  cancelled,  ///< whoever asked has cancelled it
  internal,   ///< the model's numbers overflowed, a callback threw, memory is short (500)
};

/// What stops the work: a corrupt file, an impossible plan. The message says what, where and how to mend it, on one
/// line. Expected outcomes are returned instead, mistakes of the program are assertions (docs/architecture.md,
/// "Errors").
class CONTEXTURE_API Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::invalid)
      : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace contexture
