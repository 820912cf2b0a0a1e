#pragma once

#include <span>
#include <string_view>

#include "files/json_object.h"

// Inside src/files alone: what the readers of JSON configurations share.

namespace contexture {

/// A field that changes what a model computes.
struct ComputingField {
  std::string_view field;
  std::string_view neutral;       // values that change nothing, a JSON list; null and missing always do
  std::string_view read_by = "";  // kinds of models that carry it out, with spaces between
};

/// Throws Error where the configuration of a model of this kind has such a field, that the kind does not carry out, and
/// whose value is not one that changes nothing.
void refuse_uncarried(std::span<const ComputingField> fields, std::string_view kind, const JsonObject& config);

/// Whether a list of words, with spaces between, has this one.
bool has_word(std::string_view words, std::string_view word);

}  // namespace contexture
