#include "backends/ring/ring_forward.h"

#include <algorithm>
#include <cstring>

#include "backends/ring/rates.h"
#include "base/error.h"
#include "tensor/kv_row.h"

namespace contexture {
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

StepResult RingForward::run(const Step& step) {
  take_own_tokens(step);
  find_views();
  attention_.begin(ring_sequences_, model_.config().attention_shape());
  pass_ = choose();
  ++steps_[static_cast<size_t>(pass_)];
  const Step own{.tokens = tokens_,
                 .positions = positions_,
                 .sequences = sequences_,
                 .wants_logits = wants_logits_,
                 .rotations = rotations_,
                 .attention = this};
  return gather(step, model_.forward(own, cache_, workspace_, pool_));
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

void RingForward::take_own_tokens(const Step& step) {
  members_.clear();
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  wants_logits_.clear();
  rotations_.clear();
  for (size_t t = 0; t < step.tokens.size(); ++t) {
    if (t == 0 || step.sequences[t] != step.sequences[t - 1]) {
      members_.push_back({step.sequences[t], tokens_.size(), tokens_.size()});
    }
    const int owner = cache_.ownership(step.sequences[t]).owner(step.positions[t]);
    if (owner != ranks_.rank()) continue;
    tokens_.push_back(step.tokens[t]);
    positions_.push_back(step.positions[t]);
    sequences_.push_back(step.sequences[t]);
    wants_logits_.push_back(step.wants_logits[t]);
    rotations_.push_back(step.rotations.empty() ? RotationId{0} : step.rotations[t]);
    members_.back().end = tokens_.size();
  }
}

void RingForward::find_views() {
  if (spans_.size() < members_.size()) spans_.resize(members_.size());  // never fewer: they keep their memory
  ring_sequences_.clear();
  for (size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    spans_[i].clear();
    cache_.view(member.sequence, spans_[i]);
    ring_sequences_.push_back(
        {std::span<const int64_t>(positions_).subspan(member.begin, member.end - member.begin), spans_[i]});
  }
}

void RingForward::attend(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries>,
                         AttentionScratch& scratch, ThreadPool& pool) {
  for (RingSequence& sequence : ring_sequences_) sequence.view = sequence.view.in_layer(layer);
  attention_.attend(pass_, shape, ring_sequences_, workspace_.q.data(), workspace_.attended.data(), scratch, pool);
}

/// Each rank has the logits of its own tokens; rank 0 wants those of all, in the order of the step.
StepResult RingForward::gather(const Step& step, std::span<const float> logits) {
  const std::span<const uint8_t> damaged(workspace_.damaged.data(), tokens_.size());
  if (ranks_.ranks() == 1) return {.logits = logits, .damaged = damaged};
  const size_t ranks = static_cast<size_t>(ranks_.ranks());
  parcels_.resize(ranks);
  for (Parcel& parcel : parcels_) parcel.tokens = parcel.rows = 0;
  for (size_t t = 0; t < step.tokens.size(); ++t) {
    Parcel& parcel = parcel_of(step, t);
    ++parcel.tokens;
    parcel.rows += step.wants_logits[t];
  }
  std::vector<std::byte>& mine = parcels_[static_cast<size_t>(ranks_.rank())].bytes;
  mine.resize(damaged.size() + logits.size_bytes());
  std::copy_n(std::as_bytes(damaged).data(), damaged.size(), mine.data());
  std::copy_n(std::as_bytes(logits).data(), logits.size_bytes(), mine.data() + damaged.size());
  std::vector<std::span<std::byte>> receive(ranks);
  for (size_t r = 1; ranks_.rank() == 0 && r < ranks; ++r) {
    Parcel& parcel = parcels_[r];
    parcel.bytes.resize(parcel.tokens + parcel.rows * model_.config().vocabulary * sizeof(float));
    receive[r] = parcel.bytes;
  }
  ranks_.gather(0, mine, receive);
  return ranks_.rank() == 0 ? unpack(step) : StepResult{};
}

RingForward::Parcel& RingForward::parcel_of(const Step& step, size_t token) {
  return parcels_[static_cast<size_t>(cache_.ownership(step.sequences[token]).owner(step.positions[token]))];
}

StepResult RingForward::unpack(const Step& step) {
  const size_t vocabulary = model_.config().vocabulary;
  logits_.clear();
  damaged_.clear();
  for (Parcel& parcel : parcels_) {
    parcel.next_mark = parcel.bytes.data();
    parcel.next_row = parcel.next_mark + parcel.tokens;
  }
  for (size_t t = 0; t < step.tokens.size(); ++t) {
    Parcel& parcel = parcel_of(step, t);
    damaged_.push_back(static_cast<uint8_t>(*parcel.next_mark++));
    if (!step.wants_logits[t]) continue;
    logits_.resize(logits_.size() + vocabulary);
    std::memcpy(logits_.data() + logits_.size() - vocabulary, parcel.next_row, vocabulary * sizeof(float));
    parcel.next_row += vocabulary * sizeof(float);
  }
  return {.logits = logits_, .damaged = damaged_};
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
  std::vector<TokenSpan> spans;
  cache_.view(sequence, spans);
  for (const TokenSpan& span : spans) {
    const size_t rows = span.count * shape.layers * shape.kv_heads;
    mine.k_bytes += rows * kv_row_bytes(span.k_format, shape.head_dim);
    mine.v_bytes += rows * kv_row_bytes(span.v_format, shape.head_dim);
  }
  std::vector<RingReport> all;
  for (const std::vector<std::byte>& bytes : ranks_.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    RingReport& report = all.emplace_back();
    if (bytes.size() != sizeof(report)) fail("the ranks do not agree on a report; start all with the same program");
    std::memcpy(&report, bytes.data(), sizeof(report));
  }
  return all;
}

}  // namespace contexture
