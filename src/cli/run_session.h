#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "engine/session.h"

namespace contexture::cli {

/// `run --session FILE`: the context of one run for the next. A prompt is the whole text: the tokens that it begins
/// with as the session does are not run again. Without a prompt the session's text goes on, random numbers included.
/// Everything here throws Error.
class RunSession {
 public:
  /// Reads the file, where there is one, and makes sure that it can be written.
  RunSession(const std::string& path, const std::string& model_path);

  bool is_there() const { return session_.has_value(); }
  /// The session's tokens, to be gone on from as if it had never stopped.
  std::vector<TokenId> go_on(const Tokenizer& tokenizer, bool has_seed, GenerateOptions& options);
  /// The tokens of context to plan for where nobody asked for a number, and the run by itself needs `wanted`.
  size_t context(size_t wanted) const;
  /// The tokens that the text may grow to, where the run by itself has `wanted` (contexture::planned_tokens).
  size_t planned(const ModelFile& model, size_t wanted) const;

  /// Whose context it is, and will be: refused where it is another model's. Reads all weights.
  void identify(const ModelFile& model, int threads);
  /// Fills an empty sequence with as much of the session as the prompt begins with; says so, and where they differ.
  PrefixReport restore(const OpenedModel& model, Runtime& runtime, SequenceId sequence, std::span<const TokenId> prompt,
                       size_t planned);
  /// Cache::clamped_values, those of the runs that this one goes on from among them.
  size_t clamped_values(Runtime& runtime) const;
  void save(Runtime& runtime, SequenceId sequence, std::span<const TokenId> prompt, const Generation& made,
            const GenerateOptions& options, size_t planned) const;

 private:
  std::string path_, model_name_;
  std::optional<MappedFile> map_;
  std::optional<SessionFile> session_;
  bool goes_on_ = false;
  size_t clamped_before_ = 0;
  Digest model_;
};

}  // namespace contexture::cli
