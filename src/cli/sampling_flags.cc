#include "cli/sampling_flags.h"

#include <limits>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

constexpr double kHottest = 1000;
constexpr int kMostKept = 1 << 30;

std::string advised(std::string_view meaning, double otherwise) {
  return fmt::format("{} (default: what the model's makers advise, else {:g})", meaning, otherwise);
}

/// Sets a value that no flag gave to what `get` finds under a key, where the key is there. Advice that makes no sense
/// is no reason not to run a model.
template <class Number, class Get>
void take_advice(const Metadata& metadata, const std::string& key, const CLI::Option& flag, Number& value, Get get) {
  if (flag.count() > 0 || !metadata.has(key)) return;
  try {
    value = static_cast<Number>(get(key));
    spdlog::info("{} is {}, as the model's makers advise", flag.get_name(), value);
  } catch (const Error& error) {
    spdlog::warn("{}; {} stays {}", error.what(), flag.get_name(), value);
  }
}

}  // namespace

void SamplingFlags::add_to(CLI::App& command) {
  GenerateOptions& g = given_;
  command.add_option("-n,--predict", predict_, "tokens to generate at most; -1: until the context is full")
      ->check(whole_number(-1, kManyTokens))
      ->capture_default_str();
  temperature_ = command.add_option("--temp", g.temperature, advised("temperature; 0 is greedy", g.temperature))
                     ->check(number(0, kHottest));
  top_k_ = command.add_option("--top-k", g.top_k, advised("keep the K likeliest tokens; 0 is off", g.top_k))
               ->check(whole_number(0, kMostKept));
  const std::string top_p = advised("keep the likeliest tokens up to this probability; 1 is off", g.top_p);
  top_p_ = command.add_option("--top-p", g.top_p, top_p)->check(number(0, 1));
  command.add_option("--min-p", g.min_p, "keep tokens this likely against the likeliest; 0 is off")
      ->check(number(0, 1))
      ->capture_default_str();
  command.add_option("--repeat-penalty", g.repeat_penalty, "divides the logits of the last 64 tokens; 1 is off")
      ->check(number(0.01, 100))
      ->capture_default_str();
  seed_ =
      command.add_option("-s,--seed", seed_given_, "same seed, same text; -1: a random one, as by default, printed")
          ->check(whole_number(-1, std::numeric_limits<int64_t>::max()));
  command.add_option("-r,--stop", g.stop, "ends before this text; may be given again")
      ->allow_extra_args(false)
      ->option_text("TEXT");
  command.add_flag("--ignore-eos", g.ignore_end, "end tokens are never chosen");
}

GenerateOptions SamplingFlags::options(const Metadata& metadata) const {
  GenerateOptions options = given_;
  const auto number_up_to = [&](double high) {
    return [&metadata, high](const std::string& key) {
      const double value = metadata.get_float(key);
      if (value < 0 || value > high) fail("{} of {} is {}, and not from 0 to {}", key, metadata.origin(), value, high);
      return value;
    };
  };
  const auto whole = [&](const std::string& key) { return metadata.get_int(key, 0, kMostKept); };
  take_advice(metadata, "general.sampling.temp", *temperature_, options.temperature, number_up_to(kHottest));
  take_advice(metadata, "general.sampling.top_k", *top_k_, options.top_k, whole);
  take_advice(metadata, "general.sampling.top_p", *top_p_, options.top_p, number_up_to(1));
  options.max_tokens = static_cast<size_t>(predict_ < 0 ? kManyTokens : predict_);
  options.seed = seed_given_ < 0 ? std::random_device()() : static_cast<uint64_t>(seed_given_);
  return options;
}

}  // namespace contexture::cli
