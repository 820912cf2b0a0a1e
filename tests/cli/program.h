#pragma once

#include <csignal>
#include <cstddef>
#include <string>
#include <vector>

#include "support/built.h"

namespace contexture {

struct Ended {
  int status = -1;  ///< of exit; 128 + signal where a signal ended it
  std::string out, err;
  size_t peak_rss = 0;  ///< bytes
};

/// Runs `contexture ARGUMENTS` (or another program) as a shell would, with this stdin, and waits for its end.
Ended run_program(const std::string& arguments, const std::string& input = {},
                  const std::string& program = contexture_program());

/// Runs it with this list of arguments, sends a signal once it has written to stdout, and waits for its end.
Ended run_program_and_interrupt(const std::vector<std::string>& arguments, int signal = SIGINT);

/// Runs a script of bash, in which $C is the program.
Ended run_script(const std::string& script);

}  // namespace contexture
