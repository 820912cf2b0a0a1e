#include "cli/run_session.h"

#include <algorithm>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "engine/prefix_report.h"

namespace contexture::cli {

RunSession::RunSession(const std::string& path, const std::string& model_path)
    : path_(path), model_name_(std::filesystem::path(model_path).filename().string()) {
  const AtomicFile can_be_written(path);  // rather now than after the work
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  map_.emplace(path);
  session_ = contexture::read_session(map_->bytes(), path);
}

std::vector<TokenId> RunSession::go_on(const Tokenizer& tokenizer, bool has_seed, GenerateOptions& options) {
  goes_on_ = true;
  clamped_before_ = session_->state.clamped_values;
  return contexture::go_on(session_->state, tokenizer, has_seed, options);
}

size_t RunSession::context(size_t wanted) const {
  return session_ ? std::max(wanted, static_cast<size_t>(session_->context.length)) : wanted;
}

size_t RunSession::planned(const ModelFile& model, size_t wanted) const {
  return session_ ? planned_tokens(*session_, rotation_border(model), wanted, goes_on_) : wanted;
}

size_t RunSession::clamped_values(Runtime& runtime) const {
  return clamped_before_ + runtime.cache().clamped_values();
}

void RunSession::identify(const ModelFile& model, int threads) {
  ThreadPool pool(threads);
  model_ = identify_model(model, pool);
  if (session_) check_model(*session_, model_);
}

PrefixReport RunSession::restore(const OpenedModel& model, Runtime& runtime, SequenceId sequence,
                                 std::span<const TokenId> prompt, size_t planned) {
  if (!session_) return {};
  if (!is_rotated_alike(*session_, runtime.model(), runtime.rotation_of(planned))) {
    tell(
        "session: made for a text on the other side of {} tokens, where this model rotates K otherwise: all {} tokens "
        "are run again\n",
        rotation_border(model.file).value_or(0), prompt.size());
    session_.reset();
    map_.reset();
    return {};
  }
  restore_session(*session_, runtime.cache(), runtime.plan(), sequence, model_);
  const std::vector<TokenId>& had = session_->state.tokens;
  const size_t alike =
      static_cast<size_t>(std::mismatch(had.begin(), had.end(), prompt.begin(), prompt.end()).first - had.begin());
  const size_t length = runtime.cache().length(sequence);
  const size_t wanted =
      std::min({alike, length, prompt.empty() ? 0 : prompt.size() - 1});  // the last one's logits are needed
  const size_t reused = wanted < length ? runtime.cache().truncate(sequence, wanted) : length;
  tell("session: {} of {} prompt tokens reused\n", reused, prompt.size());
  PrefixReport report{.reused_tokens = reused,
                      .lost_tokens = wanted - reused,
                      .first_difference = first_difference(model.need_tokenizer(), had, prompt)};
  session_.reset();
  map_.reset();
  return report;
}

void RunSession::save(Runtime& runtime, SequenceId sequence, std::span<const TokenId> prompt, const Generation& made,
                      const GenerateOptions& options, size_t planned) const {
  SessionState state = state_after(prompt, options, made, planned);
  state.clamped_values = clamped_values(runtime);
  try {
    save_session(path_, runtime, sequence, state, runtime.rotation_of(planned), model_, model_name_);
  } catch (const Error& error) {
    throw LostWork(error.what());
  }
}

}  // namespace contexture::cli
