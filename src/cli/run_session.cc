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

std::vector<TokenId> RunSession::go_on(GenerateOptions& options, bool has_seed) const {
  const SessionState& state = session_->state;
  if (!has_seed || options.seed == state.seed) {
    options.seed = state.seed;
    options.draws = state.draws;
  }
  return state.tokens;
}

void RunSession::identify(const ModelFile& model, int threads) {
  ThreadPool pool(threads);
  model_ = identify_model(model, pool);
  if (session_) check_model(*session_, model_);
}

PrefixReport RunSession::restore(const OpenedModel& model, Runtime& runtime, SequenceId sequence,
                                 std::span<const TokenId> prompt) {
  if (!session_) return {};
  restore_session(*session_, runtime, sequence, model_);
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
                      const GenerateOptions& options) const {
  SessionState state{
      .tokens = {prompt.begin(), prompt.end()}, .seed = options.seed, .draws = options.draws + made.token_ids.size()};
  state.tokens.insert(state.tokens.end(), made.token_ids.begin(), made.token_ids.end());
  save_session(path_, runtime, sequence, state, model_, model_name_);
}

}  // namespace contexture::cli
