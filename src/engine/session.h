#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cache/saved_context.h"
#include "engine/model_identity.h"
#include "engine/runtime.h"

namespace contexture {

/// A context in a file (the format is described in session.cc): a run that goes on from it is, to the bit, as if it had
/// never stopped. Where the cache of the run that goes on is another, its rows are converted, with a warning.

/// What a session remembers beside the context.
struct SessionState {
  std::vector<TokenId> tokens = {};  // all of the text; the last ones may not have been run yet
  uint64_t seed = 0;                 // of the sampler,
  uint64_t draws = 0;                // and how many of its random numbers have been used: at most one a token
};

/// A session file, read.
struct Session {
  std::string path;
  Digest model;
  uint64_t rope = 0;
  std::string model_name;  // for people
  std::string layout;
  size_t hot_tokens = 0, sink_tokens = 0;  // of a mixed cache
  SessionState state;
  SavedContext context;
  std::span<const std::byte> layers;  // every layer's rows and their checksum, in the bytes that were read
};

/// Reads a session file's bytes, which must outlive what is returned. Throws Error, in one line and with the way to
/// mend it, where they are damaged, cut off, of a newer version or no session at all. `path` is for messages.
Session read_session(std::span<const std::byte> bytes, const std::string& path, bool verify = true);

/// Throws Error where the session is not of this model (identify_model).
void check_model(const Session& session, const Digest& model);

/// Fills an empty sequence of the runtime's cache. `model`: of the runtime's (identify_model). Throws Error where the
/// session is of another model or does not fit the context; warns where rows were converted.
void restore_session(const Session& session, Runtime& runtime, SequenceId sequence, const Digest& model);

/// Writes a sequence and its state, of which it holds the first tokens, to a file that is there whole or as it was.
/// Throws Error where it cannot be written.
void save_session(const std::string& path, Runtime& runtime, SequenceId sequence, const SessionState& state,
                  const Digest& model, const std::string& model_name);

}  // namespace contexture
