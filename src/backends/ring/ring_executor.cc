#include "backends/ring/ring_executor.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"

namespace contexture {
namespace {

/// Bytes of a step's tokens as they travel: a decoding step's go with the message itself.
constexpr size_t kInline = 224;

/// A step's numbers, one array after the other.
constexpr size_t kTokenBytes = sizeof(int32_t) + sizeof(int64_t) + sizeof(SequenceId) + 1 + sizeof(RotationId);

}  // namespace

struct RingExecutor::Message {
  Order order = Order::end;
  SequenceId sequence = 0;
  uint64_t tokens = 0;
  std::array<std::byte, kInline> numbers = {};  // of a step that has few
};

RingExecutor::RingExecutor(std::shared_ptr<const Transformer> model, const CpuSizes& sizes, const RingSizes& ring,
                           Communicator& ranks, const RingChoice& choice)
    : Executor({.context = sizes.cache.context,
                .sequences = sizes.cache.sequences,
                .vocabulary = model->config().vocabulary,
                .step_tokens = sizes.step_tokens,
                .logit_rows = sizes.workspace.logit_rows}),
      pool_(sizes.workspace.threads),
      model_(std::move(model)),
      ranks_(ranks),
      cache_(sizes.cache, ranks.rank(), ranks.ranks(), ring.dealing),
      workspace_(model_->config(), sizes.workspace),
      forward_(ranks, *model_, cache_, workspace_, pool_, ring, choice) {
  if (ring.ranks != static_cast<size_t>(ranks.ranks())) {
    fail("the plan is for {} ranks, and there are {}", ring.ranks, ranks.ranks());
  }
}

RingExecutor::~RingExecutor() {
  if (ranks_.rank() != 0 || failed_) return;
  try {
    tell(Order::end);
  } catch (const std::exception&) {
    // Who is gone needs no leave.
  }
}

void RingExecutor::tell(Order order, SequenceId sequence, size_t tokens) {
  if (failed_) fail_as(ErrorKind::closed, "a rank has failed; start all of them again");
  if (ranks_.ranks() == 1) return;
  Message message{.order = order, .sequence = sequence, .tokens = tokens};
  failed_ = true;  // until it is known that it has not
  ranks_.broadcast(0, std::as_writable_bytes(std::span(&message, 1)));
  failed_ = false;
}

void RingExecutor::tell_step(const Step& step) {
  if (ranks_.ranks() == 1) return;
  Message message{.order = Order::step, .tokens = step.tokens.size()};
  numbers_.resize(step.tokens.size() * kTokenBytes);
  std::byte* at = numbers_.data();
  const auto put = [&](const auto& array) {
    std::memcpy(at, array.data(), array.size_bytes());
    at += array.size_bytes();
  };
  put(step.positions);
  put(step.tokens);
  put(step.sequences);
  put(step.wants_logits);
  if (step.rotations.empty()) {
    std::fill_n(at, step.tokens.size(), std::byte{0});
  } else {
    put(step.rotations);
  }
  const bool is_small = numbers_.size() <= kInline;
  if (is_small) std::copy(numbers_.begin(), numbers_.end(), message.numbers.begin());
  ranks_.broadcast(0, std::as_writable_bytes(std::span(&message, 1)));
  if (!is_small) ranks_.broadcast(0, numbers_);
}

void RingExecutor::receive_step(const Message& message) {
  const size_t count = message.tokens;
  numbers_.resize(count * kTokenBytes);
  if (numbers_.size() <= kInline) {
    std::copy_n(message.numbers.begin(), numbers_.size(), numbers_.begin());
  } else {
    ranks_.broadcast(0, numbers_);
  }
  const std::byte* at = numbers_.data();
  const auto take = [&]<class Number>(std::vector<Number>& array) {
    array.resize(count);
    std::memcpy(array.data(), at, count * sizeof(Number));
    at += count * sizeof(Number);
    return std::span<const Number>(array);
  };
  std::vector<int64_t> positions;
  std::vector<int32_t> tokens;
  std::vector<SequenceId> sequences;
  std::vector<uint8_t> wants_logits;
  std::vector<RotationId> rotations;
  const std::span<const int64_t> all_positions = take(positions);
  (void)forward_.run({.tokens = take(tokens),
                      .positions = all_positions,
                      .sequences = take(sequences),
                      .wants_logits = take(wants_logits),
                      .rotations = take(rotations)});
}

void RingExecutor::obey() {
  for (Message message;;) {
    ranks_.await_broadcast(0, std::as_writable_bytes(std::span(&message, 1)));
    switch (message.order) {
      case Order::create:
        (void)cache_.create();
        break;
      case Order::fork:
        (void)cache_.fork(message.sequence);
        break;
      case Order::free:
        cache_.free(message.sequence);
        break;
      case Order::append:
        (void)cache_.append(message.sequence, message.tokens);
        break;
      case Order::truncate:
        (void)cache_.truncate(message.sequence, message.tokens);
        break;
      case Order::step:
        receive_step(message);
        break;
      case Order::fill:
        fill_here(message.sequence, message.tokens);
        break;
      case Order::report:
        (void)forward_.report(message.sequence);
        break;
      case Order::end:
        return;
      default:
        fail("rank 0 says what rank {} does not know; start all ranks with the same program", ranks_.rank());
    }
  }
}

StepResult RingExecutor::forward(const Step& step) {
  if (step.cancelled && *step.cancelled) return {.cancelled = true};
  if (failed_) fail_as(ErrorKind::closed, "a rank has failed; start all of them again");
  failed_ = true;
  tell_step(step);
  const StepResult result = forward_.run(step);
  failed_ = false;
  return result;
}

void RingExecutor::fill(SequenceId sequence, size_t tokens) {
  tell(Order::fill, sequence, tokens);
  fill_here(sequence, tokens);
}

void RingExecutor::fill_here(SequenceId sequence, size_t tokens) {
  fill_random(cache_, sequence, tokens, capacities().step_tokens,
              [&](int64_t position) { return cache_.ownership(sequence).owner(position) == ranks_.rank(); });
}

std::vector<RingReport> RingExecutor::report(SequenceId sequence) {
  tell(Order::report, sequence);
  return forward_.report(sequence);
}

std::optional<SequenceId> RingExecutor::SharedBooks::create(uint64_t) {
  ring_.tell(Order::create);
  return ring_.cache_.create();
}

std::optional<SequenceId> RingExecutor::SharedBooks::fork(SequenceId sequence) {
  ring_.tell(Order::fork, sequence);
  return ring_.cache_.fork(sequence);
}

void RingExecutor::SharedBooks::free(SequenceId sequence) {
  if (ring_.failed_) return;
  ring_.tell(Order::free, sequence);
  ring_.cache_.free(sequence);
}

bool RingExecutor::SharedBooks::append(SequenceId sequence, size_t tokens) {
  ring_.tell(Order::append, sequence, tokens);
  return ring_.cache_.append(sequence, tokens);
}

size_t RingExecutor::SharedBooks::truncate(SequenceId sequence, size_t length) {
  if (ring_.failed_) return ring_.cache_.truncate(sequence, length);  // of no use any more, to anyone
  ring_.tell(Order::truncate, sequence, length);
  return ring_.cache_.truncate(sequence, length);
}

}  // namespace contexture
