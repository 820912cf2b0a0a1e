#include "cli/sampling_flags.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

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
    log_info("{} is {}, as the model's makers advise", flag.get_name(), value);
  } catch (const Error& error) {
    log_warning("{}; {} stays {}", error.what(), flag.get_name(), value);
  }
}

/// "15043+1.5", "15043-1", "15043-inf": llama.cpp's way to write them.
LogitBias read_bias(const std::string& text) {
  LogitBias bias;
  const char* const end = text.data() + text.size();
  const auto [sign, error] = std::from_chars(text.data(), end, bias.id);
  const bool has_sign = error == std::errc() && text[0] != '-' && sign != end && (*sign == '+' || *sign == '-');
  if (has_sign) {
    const auto [rest, wrong] = std::from_chars(sign + 1, end, bias.bias);
    const bool is_number = wrong == std::errc() && rest == end && sign[1] != '-' && !std::isnan(bias.bias);
    if (*sign == '-') bias.bias = -bias.bias;
    if (is_number && bias.bias < std::numeric_limits<float>::infinity()) return bias;
  }
  fail("--logit-bias {}: give a token's id and what is added to its logit, as 15043+1.5, 15043-1 or 15043-inf",
       printable(text));
}

/// What the model's makers may advise, and the key of it.
const std::map<std::string_view, std::string>& advised_fields() {
  static const std::map<std::string_view, std::string> keys = {{"temperature", "general.sampling.temp"},
                                                               {"top-k", "general.sampling.top_k"},
                                                               {"top-p", "general.sampling.top_p"}};
  return keys;
}

}  // namespace

CLI::Option* SamplingFlags::add_number(CLI::App& command, const SamplingField& field) {
  Sampling& s = given_.sampling;
  const bool is_advised = advised_fields().contains(field.name);
  const std::string meaning = is_advised ? advised(field.meaning, get(s, field)) : std::string(field.meaning);
  const std::string flags(field.flags);
  CLI::Option* option =
      std::visit([&](auto member) { return command.add_option(flags, s.*member, meaning); }, field.member);
  const bool is_whole = std::holds_alternative<int32_t Sampling::*>(field.member);
  option->check(is_whole ? whole_number(static_cast<int64_t>(field.low), static_cast<int64_t>(field.high))
                         : number(field.low, field.high));
  if (!is_advised) option->capture_default_str();
  return option;
}

void SamplingFlags::add_to(CLI::App& command) {
  GenerateOptions& g = given_;
  command.add_option("-n,--predict", predict_, "tokens to generate at most; -1: until the context is full")
      ->check(whole_number(-1, kManyTokens))
      ->capture_default_str();
  for (const SamplingField& field : sampling_fields()) numbers_[field.name] = add_number(command, field);
  breakers_ = command
                  .add_option("--dry-sequence-breaker", given_breakers_,
                              "no repetition goes over this text; may be given again, in place of \\n : \" *; none: "
                              "there is none")
                  ->allow_extra_args(false)
                  ->option_text("TEXT");
  command.add_option("--logit-bias", biases_, "added to the logit of a token: 15043+1.5; 15043-inf rules it out")
      ->allow_extra_args(false)
      ->option_text("ID+BIAS");
  seed_ =
      command.add_option("-s,--seed", seed_given_, "same seed, same text; -1: a random one, as by default, printed")
          ->check(whole_number(-1, std::numeric_limits<int64_t>::max()));
  command.add_option("-r,--stop", g.stop, "ends before this text; may be given again")
      ->allow_extra_args(false)
      ->option_text("TEXT");
  command.add_flag("--ignore-eos", g.ignore_end, "end tokens are never chosen");
}

/// A filter that was asked for and would not filter.
void SamplingFlags::refuse_what_mirostat_replaces() const {
  if (given_.sampling.mirostat == 0) return;
  for (const SamplingField& field : sampling_fields()) {
    const CLI::Option& option = *numbers_.at(field.name);
    if (field.cuts && option.count() > 0) {
      fail("{} has no effect with --mirostat 2, which takes its place; leave one of them out", option.get_name());
    }
  }
}

GenerateOptions SamplingFlags::options(const Metadata& metadata) const {
  refuse_what_mirostat_replaces();
  GenerateOptions options = given_;
  for (const SamplingField& field : sampling_fields()) {
    const auto key = advised_fields().find(field.name);
    if (key == advised_fields().end()) continue;
    const auto read = [&](const std::string& name) {
      const double value = metadata.get_float(name);
      if (value < field.low || value > field.high) {
        fail("{} of {} is {}, and not from {:g} to {:g}", name, metadata.origin(), value, field.low, field.high);
      }
      return value;
    };
    const auto whole = [&](const std::string& name) {
      return metadata.get_int(name, 0, static_cast<int64_t>(field.high));
    };
    const CLI::Option& flag = *numbers_.at(field.name);
    if (const auto* member = std::get_if<float Sampling::*>(&field.member)) {
      take_advice(metadata, key->second, flag, options.sampling.*(*member), read);
    } else {
      take_advice(metadata, key->second, flag, options.sampling.*std::get<int32_t Sampling::*>(field.member), whole);
    }
  }
  if (breakers_->count() > 0) {
    const bool is_none = given_breakers_.size() == 1 && given_breakers_[0] == "none";
    options.sampling.dry_sequence_breakers = is_none ? std::vector<std::string>() : given_breakers_;
  }
  for (const std::string& text : biases_) options.sampling.logit_bias.push_back(read_bias(text));
  check_sampling(options.sampling);
  options.max_tokens = static_cast<size_t>(predict_ < 0 ? kManyTokens : predict_);
  options.sampling.seed = seed_given_ < 0 ? std::random_device()() : static_cast<uint64_t>(seed_given_);
  return options;
}

}  // namespace contexture::cli
