#include "verify/needle.h"

#include <algorithm>
#include <limits>
#include <random>
#include <unordered_set>

#include "base/error.h"
#include "cache/layout.h"

namespace contexture {
namespace {

/// The same numbers everywhere, which the standard's distributions do not promise.
size_t draw(std::mt19937_64& random, size_t below) {
  return random() % below;
}

std::vector<TokenId> shuffled(std::vector<TokenId> tokens, std::mt19937_64& random) {
  for (size_t i = tokens.size(); i > 1; --i) std::swap(tokens[i - 1], tokens[draw(random, i)]);
  return tokens;
}

/// A place for the i-th key where it and its value lie in [begin, end).
size_t place_of_key(size_t i, size_t begin, size_t end, std::mt19937_64& random) {
  constexpr size_t kBorders[] = {8, 16, 32, 64, 128, 256};
  const size_t last = end - 2, somewhere = begin + draw(random, last - begin + 1);
  const size_t before = i % 4;  // tokens from the key to the border: 0 behind it, 1 across, 2 before; 3: anywhere
  if (before == 3) return somewhere;
  const size_t border = kBorders[i / 4 % std::size(kBorders)];
  const size_t nearest = (somewhere + border / 2) / border * border;
  return std::clamp(nearest - std::min(nearest, before), begin, last);
}

}  // namespace

NeedleTokens needle_tokens(const ModelFile& file) {
  const std::string path = printable(file.path, 400);
  if (!file.metadata.has("needle.keys")) {
    fail("{} is no needle model (it has no needle.keys); leave -m out for the one that ships", path);
  }
  const int64_t vocabulary = static_cast<int64_t>(read_config(file.metadata).vocabulary);
  std::unordered_set<TokenId> seen;
  const auto role = [&](std::string_view key) {
    std::vector<TokenId> ids;
    for (const int64_t id : file.metadata.get_ints(key)) {
      if (id < 0 || id >= vocabulary || !seen.insert(static_cast<TokenId>(id)).second) {
        fail("{}: {} names token {}, which is outside the vocabulary or named before", path, key, id);
      }
      ids.push_back(static_cast<TokenId>(id));
    }
    if (ids.empty()) fail("{}: {} is missing or empty; the file holds no whole needle model", path, key);
    return ids;
  };
  return {.keys = role("needle.keys"), .values = role("needle.values"), .fillers = role("needle.fillers")};
}

NeedleContext hide_needles(const NeedleTokens& tokens, size_t depth, size_t count) {
  const size_t most = std::min({tokens.keys.size(), tokens.values.size(), depth / 2});
  if (count == 0 || count > most) {
    fail("{} needles in {} tokens: this model can hide 1 to {} there; choose --needles or --depths accordingly", count,
         depth, most);
  }
  std::mt19937_64 random(depth);
  const std::vector<TokenId> keys = shuffled(tokens.keys, random), values = shuffled(tokens.values, random);
  NeedleContext context;
  context.tokens.resize(depth);
  for (TokenId& t : context.tokens) t = tokens.fillers[draw(random, tokens.fillers.size())];
  const size_t part = depth / count, longer = depth % count;  // the first `longer` parts have a token more
  for (size_t i = 0, begin = 0, end = 0; i < count; ++i, begin = end) {
    end = begin + part + (i < longer ? 1 : 0);
    size_t position = place_of_key(i, begin, end, random);
    if (i == 0) position = 0;
    if (i + 1 == count) position = depth - 2;
    context.tokens[position] = keys[i];
    context.tokens[position + 1] = values[i];
    context.needles.push_back({position, keys[i], values[i]});
  }
  return context;
}

RunOptions needle_options(RunOptions options, size_t depth) {
  options.cache.context = depth + 1;
  options.cache.sequences = 2;
  options.dealing = Dealing::balanced;  // the context is alone, but for its questions
  // The question shares the context's pages, and has one of its own.
  set_pool(options.cache, depth + unit_of(options.cache));
  return options;
}

NeedleAsker::NeedleAsker(Executor& executor, const std::atomic<bool>* cancelled)
    : executor_(executor),
      rotation_(executor.rotation_of(executor.capacities().context)),
      cancelled_(cancelled),
      context_(executor.books()) {}

bool NeedleAsker::read(std::span<const TokenId> tokens, const std::function<void(size_t)>& on_chunk) {
  const size_t chunk = executor_.capacities().step_tokens;
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const size_t count = std::min(chunk, tokens.size() - at);
    feed(context_.id(), tokens.subspan(at, count), false);
    if (is_cancelled()) return false;
    if (on_chunk) on_chunk(at + count);
  }
  return true;
}

std::optional<NeedleAnswer> NeedleAsker::ask(const Needle& needle) {
  const std::optional<SequenceId> fork = executor_.books().fork(context_.id());
  if (!fork) fail("the cache has no room for a question beside the context; make it for two sequences");
  const std::span<const float> logits = feed(*fork, {&needle.key, 1}, true);
  executor_.books().free(*fork);
  if (is_cancelled()) return std::nullopt;
  NeedleAnswer answer{.needle = needle};
  answer.answer = static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const size_t value = static_cast<size_t>(needle.value);
  float other = -std::numeric_limits<float>::infinity();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (id != value) other = std::max(other, logits[id]);
  }
  answer.lead = logits[value] - other;
  return answer;
}

/// Runs tokens that fit a step; the logits after the last one where they are wanted.
std::span<const float> NeedleAsker::feed(SequenceId sequence, std::span<const TokenId> tokens, bool wants_logits) {
  Books& books = executor_.books();
  const size_t first = books.length(sequence);
  if (!books.append(sequence, tokens.size()))
    fail("the cache has no room for {} more tokens; make it larger", tokens.size());
  step_.clear();
  step_.add(sequence, first, tokens, wants_logits ? tokens.size() - 1 : tokens.size(), rotation_);
  return executor_.forward(step_.step(cancelled_)).logits;
}

std::optional<std::vector<NeedleAnswer>> ask_all(Executor& executor, const NeedleContext& context,
                                                 const std::function<void(size_t)>& on_chunk,
                                                 const std::atomic<bool>* cancelled) {
  NeedleAsker asker(executor, cancelled);
  if (!asker.read(context.tokens, on_chunk)) return std::nullopt;
  std::vector<NeedleAnswer> answers;
  for (const Needle& needle : context.needles) {
    const std::optional<NeedleAnswer> answer = asker.ask(needle);
    if (!answer) return std::nullopt;
    answers.push_back(*answer);
  }
  return answers;
}

size_t count_right(std::span<const NeedleAnswer> answers) {
  return static_cast<size_t>(std::count_if(answers.begin(), answers.end(), [](auto& a) { return a.is_right(); }));
}

}  // namespace contexture
