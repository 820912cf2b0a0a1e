#pragma once

#include <map>
#include <mutex>
#include <optional>

#include "chat/chat_template.h"
#include "contexture/model.h"
#include "engine/model_identity.h"
#include "engine/opened_model.h"
#include "engine/plan.h"

namespace contexture {

/// What a Model is made of.
struct Model::Impl {
  OpenedModel opened;
  ModelConfig config;
  std::shared_ptr<const Transformer> transformer;  // null: without weights
  ModelFacts facts;

  /// By which sessions know it. Reads all weights, once.
  const Digest& digest() const;

  /// The template of a format; empty: the file's own. Throws Error where there is none.
  const ChatTemplate& chat_template(const std::string& format, bool parse_special) const;

 private:
  mutable std::mutex digest_mutex_, template_mutex_;  // a digest takes long, and holds up no template
  mutable std::optional<Digest> digest_;
  mutable std::map<std::pair<std::string, bool>, ChatTemplate> templates_;  // those asked for so far
};

/// The plan that an engine with these options has.
MemoryPlan memory_plan(const Model::Impl& model, const EngineOptions& options);
/// As the host sees it.
Plan shown(const MemoryPlan& plan);

}  // namespace contexture
