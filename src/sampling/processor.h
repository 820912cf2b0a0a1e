#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "contexture/sampling.h"
#include "sampling/candidates.h"

namespace contexture {

class DryBreakers;

/// One choice of a text, for whoever has a part in it.
struct Occasion {
  std::span<const TokenId> history;   ///< prompt and generated tokens so far
  std::span<const TokenId> banned;    ///< never chosen
  std::span<const uint64_t> allowed;  ///< a bit a token, low bits first: the others are not chosen; empty: all are
  const DryBreakers& breakers;
  uint64_t choice;  ///< of the text: how many came before
};

/// A step from logits to a token: it changes logits or cuts candidates. It keeps nothing from row to row.
struct Processor {
  enum class Effect : uint8_t {
    changes,    ///< logits; nothing is cut yet
    cuts_tail,  ///< and never the likeliest
    cuts,       ///< the likeliest as well, perhaps; never all
  };
  std::string_view name;
  Effect effect;
  bool (*is_on)(const Sampling&);
  void (*apply)(const Sampling&, const Occasion&, Candidates&);
};

/// All of them, in the order in which they are applied.
std::span<const Processor* const> processors();

}  // namespace contexture
