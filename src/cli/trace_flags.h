#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "verify/trace_writer.h"

namespace contexture::cli {

/// Numbers as people list them: "0,3-5,9-" is 0, 3, 4, 5, and all from 9 on.
class NumberList {
 public:
  /// Nothing where it is no such list.
  static std::optional<NumberList> parse(const std::string& text);
  bool has(size_t number) const;
  /// The largest number that is named.
  size_t largest() const;

 private:
  std::vector<std::pair<size_t, size_t>> ranges_;  // first, last
};

/// --trace and what chooses what is traced.
struct TraceFlags {
  std::string file, layers = "0-", steps = "0-";

  void add_to(CLI::App& command);
  /// Null where no trace is asked for. Throws Error where the model has no such layers.
  std::unique_ptr<TraceWriter> open(const std::string& model, size_t model_layers) const;
};

}  // namespace contexture::cli
