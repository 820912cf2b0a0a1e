#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "cache/books.h"
#include "model/step.h"
#include "text/vocabulary.h"

namespace contexture {

using KeptId = uint64_t;

/// Contexts that stay when the texts that made them have ended, for texts to come that begin alike: a conversation's, a
/// session's. Each is its tokens, and a sequence that holds them where there is room: where there is not, the one that
/// was not used for longest gives its sequence up, and its tokens are run again when they are wanted.
class KeptContexts {
 public:
  struct Context {
    std::vector<TokenId> tokens = {};  // that the sequence holds, or held
    SequenceId sequence = kNone;
    RotationId rotation = 0;
    uint64_t key = 0;     // of the books
    bool busy = false;    // a text waits or runs in it, which takes its sequence when it begins; or it is pinned
    bool pinned = false;  // its sequence stays what it is
    uint64_t last_used = 0;
  };
  static constexpr SequenceId kNone = -1;

  /// `books` must outlive this.
  explicit KeptContexts(Books& books) : books_(books) {}
  ~KeptContexts();
  KeptContexts(const KeptContexts&) = delete;
  KeptContexts& operator=(const KeptContexts&) = delete;

  KeptId create();
  /// A sequence of the caller's, of which the books hold these tokens.
  KeptId lend(SequenceId sequence, std::vector<TokenId> tokens, RotationId rotation, uint64_t key);
  /// The sequence is the caller's again; kNone where it was given up.
  SequenceId take_back(KeptId id);
  void drop(KeptId id);

  Context& at(KeptId id) { return contexts_.at(id); }
  const Context& at(KeptId id) const { return contexts_.at(id); }
  /// It was used just now.
  void touch(KeptId id) { at(id).last_used = ++clock_; }
  /// Rises whenever one is used: while it does not, no other has become idle.
  uint64_t clock() const { return clock_; }
  /// It makes no room for others, and nobody runs in it, until it is unpinned.
  void pin(KeptId id);
  void unpin(KeptId id);
  bool is_any_pinned() const { return pinned_ > 0; }
  /// Another with the same tokens. It shares pages where the cache has such, and takes a copy where there is room;
  /// elsewhere its tokens are run again when they are wanted.
  KeptId fork(KeptId id);
  /// Forgets all but the first tokens.
  void truncate(KeptId id, size_t length);

  /// Frees the sequence of the one context that was not used for longest, of those that have one and are not pinned;
  /// false where there is none.
  bool give_up_one();

 private:
  void free_sequence(Context& context);

  Books& books_;
  std::map<KeptId, Context> contexts_;
  KeptId next_ = 1;
  uint64_t clock_ = 0;
  size_t pinned_ = 0;
};

}  // namespace contexture
