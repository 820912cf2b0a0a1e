#pragma once

#include "backends/static_graph/static_runner.h"
#include "verify/perplexity.h"

namespace contexture {

/// As measure_perplexity, by compiled graphs. A window may be one token longer than what the runner can hold: nobody
/// asks what follows its last token.
std::optional<Perplexity> measure_perplexity(std::span<const TokenId> text, const TextWindows& windows,
                                             StaticRunner& runner, const TextProgress& progress = {});

}  // namespace contexture
