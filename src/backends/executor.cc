#include "backends/executor.h"

#include "base/error.h"

namespace contexture {

void Executor::fill(SequenceId, size_t) {
  fail("this executor cannot be filled with random K and V; measure at depth 0");
}

OwnedSequence::OwnedSequence(Books& books) : books_(books) {
  const std::optional<SequenceId> id = books.create();
  if (!id) fail("no room for another sequence; make the cache for more of them");
  id_ = *id;
}

}  // namespace contexture
