#include "sampling/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace contexture {

std::span<const SamplingField> sampling_fields() {
  constexpr double kMany = 1 << 30;
  static const SamplingField fields[] = {
      {"temperature", "--temp", &Sampling::temperature, 0, 1000, "temperature; 0 is greedy"},
      {"top-k", "--top-k", &Sampling::top_k, 0, kMany, "keep the K likeliest tokens; 0 is off", true},
      {"top-p", "--top-p", &Sampling::top_p, 0, 1, "keep the likeliest tokens up to this probability; 1 is off", true},
      {"min-p", "--min-p", &Sampling::min_p, 0, 1, "keep tokens this likely against the likeliest; 0 is off", true},
      {"typical-p", "--typical,--typical-p", &Sampling::typical_p, 0, 1,
       "keep the tokens whose surprise is most typical, up to this probability; 1 is off", true},
      {"top-n-sigma", "--top-n-sigma,--top-nsigma", &Sampling::top_n_sigma, -1, 1000,
       "keep logits so many standard deviations below the largest; 0 or less is off", true},
      {"XTC probability", "--xtc-probability", &Sampling::xtc_probability, 0, 1,
       "with this probability leave out the top choices but the last; 0 is off", true},
      {"XTC threshold", "--xtc-threshold", &Sampling::xtc_threshold, 0, 1,
       "how likely a top choice is; above 0.5 is off"},
      {"repetition penalty", "--repeat-penalty", &Sampling::repeat_penalty, 0.01, 100,
       "divides the logits of the last tokens (--repeat-last-n); 1 is off"},
      {"presence penalty", "--presence-penalty", &Sampling::presence_penalty, -100, 100,
       "subtracted from the logits of the last tokens; 0 is off"},
      {"frequency penalty", "--frequency-penalty", &Sampling::frequency_penalty, -100, 100,
       "the same, for each time that one is there; 0 is off"},
      {"window of penalties", "--repeat-last-n", &Sampling::repeat_last_n, -1, kMany,
       "tokens, prompt and answer, that penalties look at; -1: all, 0 is off"},
      {"DRY multiplier", "--dry-multiplier", &Sampling::dry_multiplier, 0, 100,
       "subtracted from what would go on with a repetition; 0 is off"},
      {"DRY base", "--dry-base", &Sampling::dry_base, 1, 100, "...times this for each token of it that is not allowed"},
      {"DRY allowed length", "--dry-allowed-length", &Sampling::dry_allowed_length, 0, kMany,
       "tokens that may be repeated"},
      {"window of DRY", "--dry-penalty-last-n", &Sampling::dry_penalty_last_n, -1, kMany,
       "tokens that are searched for repetitions; -1: all, 0 is off"},
      {"Mirostat", "--mirostat", &Sampling::mirostat, 0, 2, "2: Mirostat 2 in place of all that cuts; 0 is off"},
      {"Mirostat tau", "--mirostat-ent", &Sampling::mirostat_tau, 0, 100, "the surprise of a token to aim at, in bits"},
      {"Mirostat eta", "--mirostat-lr", &Sampling::mirostat_eta, 0, 10, "how fast it gets there"},
  };
  return fields;
}

double get(const Sampling& sampling, const SamplingField& field) {
  return std::visit([&](auto member) { return static_cast<double>(sampling.*member); }, field.member);
}

void check_sampling(const Sampling& sampling) {
  for (const SamplingField& field : sampling_fields()) {
    const double value = get(sampling, field);
    if (!(value >= field.low && value <= field.high)) {
      fail("the {} is {:g}; give one from {:g} to {:g}", field.name, value, field.low, field.high);
    }
  }
  if (sampling.mirostat == 1) fail("Mirostat 1 is not implemented; give 2, which replaces it, or 0");
  for (const LogitBias& b : sampling.logit_bias) {
    if (std::isnan(b.bias) || b.bias == std::numeric_limits<float>::infinity()) {
      fail("the logit bias of token {} is {}; give a finite one, or -inf to rule the token out", b.id, b.bias);
    }
    if (b.id < 0) fail("a logit bias is for token {}; ids start with 0", b.id);
  }
}

void check_biases(const Sampling& sampling, size_t vocabulary) {
  for (const LogitBias& b : sampling.logit_bias) {
    if (b.id < 0 || static_cast<size_t>(b.id) >= vocabulary) {
      fail("a logit bias is for token {}, and the model has {} tokens; leave it out", b.id, vocabulary);
    }
  }
}

std::string describe(const Sampling& sampling) {
  std::string line;
  for (const SamplingField& field : sampling_fields()) {
    line += fmt::format("{} {:.9g}, ", field.name, get(sampling, field));
  }
  for (const std::string& text : sampling.dry_sequence_breakers) line += fmt::format("breaker {}, ", printable(text));
  for (const LogitBias& b : sampling.logit_bias) line += fmt::format("bias of {} {:.9g}, ", b.id, b.bias);
  return line + fmt::format("seed {}", sampling.seed);
}

}  // namespace contexture
