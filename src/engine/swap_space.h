#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "cache/saved_context.h"

namespace contexture {

/// Memory for contexts that are taken out of the cache to make room, and come back as they were, to the bit.
class SwapSpace {
 public:
  using Ticket = uint64_t;

  /// `bytes` at most, in the plan; `cache` null: nothing can be swapped. `clock`: nanoseconds.
  SwapSpace(Cache* cache, size_t bytes, std::function<uint64_t()> clock);

  /// Takes a copy of the sequence; nothing where there is no room, here or in the machine, or where running its tokens
  /// again would be sooner: `run_ns` nanoseconds.
  std::optional<Ticket> out(SequenceId sequence, uint64_t run_ns);
  /// Fills an empty sequence; false where the cache has no room.
  bool in(Ticket ticket, SequenceId sequence);
  void drop(Ticket ticket);

 private:
  void observe(size_t bytes, uint64_t nanoseconds);

  Cache* cache_;
  const size_t bytes_;
  const std::function<uint64_t()> clock_;
  size_t used_ = 0;
  double ns_per_byte_ = 0.5;  // measured as it goes; this is a slow machine's
  Ticket next_ = 1;
  std::map<Ticket, SwappedContext> contexts_;
};

}  // namespace contexture
