#include "backends/ring/ring_forward.h"

#include <algorithm>
#include <cstring>

#include "backends/ring/rates.h"
#include "base/error.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// A mark of a step, alike where the steps are (FNV-1a over its numbers).
uint64_t mark_of(const Step& step) {
  uint64_t mark = 0xcbf29ce484222325;
  const auto add = [&](uint64_t number) { mark = (mark ^ number) * 0x100000001b3; };
  for (size_t t = 0; t < step.tokens.size(); ++t) {
    add(static_cast<uint64_t>(step.tokens[t]));
    add(static_cast<uint64_t>(step.positions[t]));
    add(static_cast<uint64_t>(step.sequences[t]));
    add(step.wants_logits[t]);
  }
  return mark;
}

}  // namespace

RingForward::RingForward(Communicator& ranks, const Transformer& model, ShardedCache& cache, Workspace& workspace,
                         ThreadPool& pool, const RingSizes& sizes, const RingChoice& choice)
    : ranks_(ranks),
      model_(model),
      cache_(cache),
      workspace_(workspace),
      pool_(pool),
      choice_(choice),
      attention_(ranks, sizes) {
  if (ranks.ranks() > 1 && !choice.mode.always && (choice.flops == 0 || choice.bandwidth == 0)) {
    const CacheShape& held = cache.shape();
    const RingRates rates = measure_rates(ranks, model.config().attention_shape(), held.k_format, held.v_format, pool);
    if (choice.flops == 0) choice_.flops = rates.flops;
    if (choice.bandwidth == 0) choice_.bandwidth = rates.bandwidth;
  }
  before_ = ranks.traffic();
}

std::span<const float> RingForward::run(const Step& step) {
  if (!agree_to_go_on(step)) return {};
  take_own_tokens(step);
  find_views(0);
  attention_.begin(ring_sequences_, model_.config().attention_shape());
  pass_ = choose();
  ++steps_[static_cast<size_t>(pass_)];
  const Step own{.tokens = tokens_,
                 .positions = positions_,
                 .sequences = sequences_,
                 .wants_logits = wants_logits_,
                 .attention = this};
  return share_logits(step, model_.forward(own, cache_, workspace_, pool_));
}

/// All ranks know the same of the step, and choose alike.
RingPass RingForward::choose() const {
  if (choice_.mode.always) return *choice_.mode.always;
  if (ranks_.ranks() == 1) return RingPass::kv;
  const ModelConfig& c = model_.config();
  const CacheShape& held = cache_.shape();
  const double kv_row =
      static_cast<double>(kv_row_bytes(held.k_format, c.head_dim) + kv_row_bytes(held.v_format, c.head_dim));
  const RingShape shape{.ranks = static_cast<double>(ranks_.ranks()),
                        .heads = static_cast<double>(c.heads),
                        .kv_heads = static_cast<double>(c.kv_heads),
                        .element_bytes = kv_row / static_cast<double>(2 * c.head_dim),
                        .query_bytes = sizeof(float),
                        .flops = choice_.flops,
                        .bandwidth = choice_.bandwidth};
  const double new_tokens = static_cast<double>(attention_.new_tokens());
  return select(shape, new_tokens, static_cast<double>(attention_.held_tokens()) - new_tokens);
}

/// Looks at all ranks' flags and steps: they must stop at the same one.
bool RingForward::agree_to_go_on(const Step& step) {
  const bool stops = (step.cancelled && *step.cancelled) || (watched_ && *watched_);
  const uint64_t mine[] = {stops, mark_of(step)};
  for (const std::vector<std::byte>& told : ranks_.all_gather(std::as_bytes(std::span(mine)))) {
    uint64_t theirs[2] = {};
    if (told.size() == sizeof(theirs)) std::memcpy(theirs, told.data(), sizeof(theirs));
    if (theirs[1] != mine[1]) fail("the ranks run different tokens; start all with the same files and flags");
    if (theirs[0]) cancelled_ = true;
  }
  return !cancelled_;
}

void RingForward::take_own_tokens(const Step& step) {
  members_.clear();
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  wants_logits_.clear();
  logits_of_.assign(static_cast<size_t>(ranks_.ranks()), 0);
  for (size_t t = 0; t < step.tokens.size(); ++t) {
    if (t == 0 || step.sequences[t] != step.sequences[t - 1]) {
      members_.push_back({step.sequences[t], tokens_.size(), tokens_.size()});
    }
    const int owner = cache_.ownership(step.sequences[t]).owner(step.positions[t]);
    logits_of_[static_cast<size_t>(owner)] += step.wants_logits[t];
    if (owner != ranks_.rank()) continue;
    tokens_.push_back(step.tokens[t]);
    positions_.push_back(step.positions[t]);
    sequences_.push_back(step.sequences[t]);
    wants_logits_.push_back(step.wants_logits[t]);
    members_.back().end = tokens_.size();
  }
}

void RingForward::find_views(size_t layer) {
  if (spans_.size() < members_.size()) spans_.resize(members_.size());  // never fewer: they keep their memory
  ring_sequences_.clear();
  for (size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    spans_[i].clear();
    cache_.view(layer, member.sequence, spans_[i]);
    ring_sequences_.push_back(
        {std::span<const int64_t>(positions_).subspan(member.begin, member.end - member.begin), spans_[i]});
  }
}

void RingForward::attend(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries>,
                         AttentionScratch& scratch, ThreadPool& pool) {
  find_views(layer);
  attention_.attend(pass_, shape, ring_sequences_, workspace_.q.data(), workspace_.attended.data(), scratch, pool);
}

/// Each rank has the logits of its own tokens; all want those of all, in the order of the step.
std::span<const float> RingForward::share_logits(const Step& step, std::span<const float> own) {
  if (ranks_.ranks() == 1) return own;
  const size_t vocabulary = model_.config().vocabulary;
  size_t rows = 0;
  for (const size_t of_rank : logits_of_) rows += of_rank;
  logits_.resize(rows * vocabulary);
  for (int r = 0; r < ranks_.ranks(); ++r) {
    const size_t count = logits_of_[static_cast<size_t>(r)];
    if (count == 0) continue;
    of_rank_.resize(count * vocabulary);
    if (r == ranks_.rank()) std::copy(own.begin(), own.end(), of_rank_.begin());
    ranks_.broadcast(r, std::as_writable_bytes(std::span(of_rank_)));
    size_t row = 0, theirs = 0;
    for (size_t t = 0; t < step.tokens.size(); ++t) {
      if (!step.wants_logits[t]) continue;
      if (cache_.ownership(step.sequences[t]).owner(step.positions[t]) == r) {
        std::copy_n(of_rank_.data() + theirs++ * vocabulary, vocabulary, logits_.data() + row * vocabulary);
      }
      ++row;
    }
  }
  return logits_;
}

std::vector<RingReport> RingForward::report(SequenceId sequence) {
  const CacheShape& shape = cache_.shape();
  const RingTraffic& traffic = ranks_.traffic();
  RingReport mine{.rank = static_cast<uint64_t>(ranks_.rank()),
                  .tokens = cache_.ownership(sequence).held()[static_cast<size_t>(ranks_.rank())],
                  .ring_bytes = traffic.ring_bytes - before_.ring_bytes,
                  .all_to_all_bytes = traffic.all_to_all_bytes - before_.all_to_all_bytes,
                  .small_bytes = traffic.small_bytes - before_.small_bytes,
                  .kv_steps = steps_[static_cast<size_t>(RingPass::kv)],
                  .q_steps = steps_[static_cast<size_t>(RingPass::q)],
                  .wait_seconds = traffic.wait_seconds - before_.wait_seconds};
  for (size_t layer = 0; layer < shape.layers; ++layer) {
    std::vector<TokenSpan> spans;
    cache_.view(layer, sequence, spans);
    for (const TokenSpan& span : spans) {
      mine.k_bytes += span.count * shape.kv_heads * kv_row_bytes(span.k_format, shape.head_dim);
      mine.v_bytes += span.count * shape.kv_heads * kv_row_bytes(span.v_format, shape.head_dim);
    }
  }
  std::vector<RingReport> all;
  for (const std::vector<std::byte>& told : ranks_.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    RingReport& report = all.emplace_back();
    if (told.size() != sizeof(report)) fail("the ranks do not agree on a report; start all with the same program");
    std::memcpy(&report, told.data(), sizeof(report));
  }
  return all;
}

}  // namespace contexture
