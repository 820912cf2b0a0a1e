#pragma once

#include "cli/command.h"
#include "verify/divergence.h"

namespace contexture::cli {

/// Flags of the commands that see how well a text is predicted.
struct ScoredTextFlags {
  std::string file;
  size_t chunk = 64;
  bool like_llama_cpp = false;

  void add_to(CLI::App& command);
};

/// A text cut for a model, and the options of a run that reads it.
struct ScoredText {
  std::vector<TokenId> tokens;
  TextWindows windows;
  size_t chunk = 0;

  /// Room for a window and for the logits of all tokens of a step.
  RunOptions fit(RunOptions options) const;
};

/// Windows of `context` tokens; 0: as many as the text has, up to what the model was made for.
ScoredText read_scored_text(const ScoredTextFlags& flags, const OpenedModel& opened, size_t context);
ScoredText read_scored_text(const ScoredTextFlags& flags, const Tokenizer& tokenizer, size_t made_for, size_t context);

/// The options of a plan's layout that decide which rows are read, by their names.
void add_row_options(const CachePlan& plan, Json& json);

/// Layout, formats and window, as every result has them.
Json cache_as_json(const CachePlan& plan);

Json divergence_as_json(const Divergence& divergence);
Json needles_as_json(const CachePlan& plan, size_t depth, size_t needles, size_t found);

/// K and V that a query at the end of the context reads, in bytes a token.
double bytes_per_token(const CachePlan& plan);

}  // namespace contexture::cli
