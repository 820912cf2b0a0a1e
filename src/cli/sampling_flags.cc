#include "cli/sampling_flags.h"

#include <limits>
#include <random>

#include "cli/command.h"

namespace contexture::cli {

void SamplingFlags::add_to(CLI::App& command) {
  GenerateOptions& g = given_;
  command.add_option("-n,--predict", predict_, "tokens to generate at most; -1: until the context is full")
      ->check(whole_number(-1, kManyTokens))
      ->capture_default_str();
  command.add_option("--temp", g.temperature, "temperature; 0 is greedy")
      ->check(number(0, 1000))
      ->capture_default_str();
  command.add_option("--top-k", g.top_k, "keep the K likeliest tokens; 0 is off")
      ->check(whole_number(0, 1 << 30))
      ->capture_default_str();
  command.add_option("--top-p", g.top_p, "keep the likeliest tokens up to this probability; 1 is off")
      ->check(number(0, 1))
      ->capture_default_str();
  command.add_option("--min-p", g.min_p, "keep tokens this likely against the likeliest; 0 is off")
      ->check(number(0, 1))
      ->capture_default_str();
  command.add_option("--repeat-penalty", g.repeat_penalty, "divides the logits of the last 64 tokens; 1 is off")
      ->check(number(0.01, 100))
      ->capture_default_str();
  seed_ = command.add_option("-s,--seed", g.seed, "same seed, same text (default: a random one, printed)")
              ->check(whole_number(0, std::numeric_limits<int64_t>::max()));
  command.add_option("--stop", g.stop, "ends before this text; may be given again")
      ->allow_extra_args(false)
      ->option_text("TEXT");
  command.add_flag("--ignore-eos", g.ignore_end, "end tokens are never chosen");
}

GenerateOptions SamplingFlags::options() const {
  GenerateOptions options = given_;
  options.max_tokens = static_cast<size_t>(predict_ < 0 ? kManyTokens : predict_);
  if (!*seed_) options.seed = std::random_device()();
  return options;
}

}  // namespace contexture::cli
