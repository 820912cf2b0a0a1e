#pragma once

#include "contexture/generation.h"
#include "contexture/sampling.h"

namespace contexture {

/// How a text is made of a prompt: the request's parts in one.
struct GenerateOptions {
  size_t max_tokens = 512;
  Sampling sampling = {};              ///< how tokens are chosen
  Resume resume = {};                  ///< where the prompt is a text that goes on: what it left behind
  bool resumable = false;              ///< text that is cut may go on: what cannot be shown yet is left to that
  bool ignore_end = false;             ///< end tokens are never chosen
  std::vector<std::string> stop = {};  ///< ends before the first of these texts
  size_t alternatives = 0;             ///< of each token that are told
};

}  // namespace contexture
