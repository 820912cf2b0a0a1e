#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/saved_context.h"
#include "engine/generate_options.h"
#include "engine/model_identity.h"
#include "engine/runtime.h"

namespace contexture {

/// A context in a file (the format is described in session.cc): a run that goes on from it is, to the bit, as if it had
/// never stopped. Where the cache of the run that goes on is another, its rows are converted, with a warning.

/// What a session remembers beside the context: all that a run which never stopped would still know.
struct SessionState {
  std::vector<TokenId> tokens = {};  // all of the text; the last ones may not have been run yet
  std::string cut_text = {};         // shown after them, where a stop text cut a token
  uint64_t seed = 0;                 // of the sampler
  Resume resume = {};                // of its random numbers at most one a token
  uint64_t clamped_values = 0;       // Cache::clamped_values
  uint64_t context = 0;              // that was planned for
};

/// The state after a run. `options` had `resumable`; `planned` tokens as of TextOptions.
SessionState state_after(std::span<const TokenId> prompt, const GenerateOptions& options, const Generation& made,
                         size_t planned);

/// The tokens to go on from, and in `options` what went with them. The random numbers are the session's, unless
/// `has_seed` and the seed there is not its own.
std::vector<TokenId> go_on(const SessionState& state, const Tokenizer& tokenizer, bool has_seed,
                           GenerateOptions& options);

/// A session file, read.
struct SessionFile {
  std::string path;
  Digest model;
  uint64_t rope = 0;
  std::string model_name;  // for people
  std::string layout;
  std::string options;  // of the layout: row_options, numbers only, since rows say their formats
  SessionState state;
  SavedContext context;
  std::span<const std::byte> layers;  // every layer's rows and their checksum, in the bytes that were read
};

/// Reads a session file's bytes, which must outlive what is returned. Throws Error, in one line and with the way to
/// mend it, where they are damaged, cut off, of a newer version or no session at all. `path` is for messages.
SessionFile read_session(std::span<const std::byte> bytes, const std::string& path, bool verify = true);

/// Throws Error where the session is not of this model (identify_model).
void check_model(const SessionFile& session, const Digest& model);

/// The tokens that a text which `goes_on` from a session is planned to grow to, where it would have `wanted`: one that
/// was planned for more than the border (rotation_border) stays beyond it, since it would be another text else.
size_t planned_tokens(const SessionFile& session, std::optional<size_t> border, size_t wanted, bool goes_on);

/// False where a text of this rotation rotates K otherwise than the session's did: its rows are of no use, its tokens
/// are to be run again.
bool is_rotated_alike(const SessionFile& session, const Transformer& model, RotationId rotation);

/// Throws Error where a session cannot be restored in a cache that was made as planned, for the model of this identity
/// (identify_model): it is damaged, of another model, or longer than the context.
void check_session(const SessionFile& session, const MemoryPlan& plan, const Digest& model);
/// Fills an empty sequence of that cache, of a text that is rotated alike. Throws Error as check_session, and where
/// there is no room (ErrorKind::busy); warns where rows were converted.
void restore_session(const SessionFile& session, Cache& cache, const MemoryPlan& plan, SequenceId sequence,
                     const Digest& model);

/// What a session file says about a sequence, beside its text and its rows.
struct HeldContext {
  SavedContext context;
  uint64_t rope;  // identify_rope
  std::string layout, options;
};
HeldContext held_context(const Cache& cache, const CachePlan& plan, SequenceId sequence, const Transformer& model,
                         RotationId rotation);

/// Hands the rows of a layer to the sink piece by piece (save_layer).
using LayerRows = std::function<void(size_t layer, const ByteSink& sink)>;

/// Writes a context and its state, of which it holds the first tokens, to a file that is there whole or as it was.
/// Throws Error where it cannot be written.
void save_session(const std::string& path, const HeldContext& held, const LayerRows& rows, const SessionState& state,
                  const Digest& model, const std::string& model_name);
/// The same of a sequence; what it holds beyond the state's tokens is forgotten.
void save_session(const std::string& path, Runtime& runtime, SequenceId sequence, const SessionState& state,
                  RotationId rotation, const Digest& model, const std::string& model_name);

}  // namespace contexture
