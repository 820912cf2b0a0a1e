#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "cache/layout_options.h"
#include "cli/interrupts.h"
#include "contexture/error.h"
#include "engine/runtime.h"

namespace contexture::cli {

using Json = nlohmann::ordered_json;

/// What was made cannot be kept: the exit status says so, also where a signal ended the work.
struct LostWork : Error {
  using Error::Error;
};

/// Flags that every subcommand about a model has.
struct ModelFlags {
  std::string model;
  std::string tokenizer;
  bool json = false;

  void add_to(CLI::App& command);
  OpenedModel open(const ModelUse& use = {}) const { return open_with_tokenizer(model, tokenizer, use); }
};

/// Flags of every subcommand that makes a cache.
struct CacheFlags {
  std::string layout = "paged";
  std::string k_format = "f16", v_format = "f16";
  std::map<std::string, std::vector<std::string>> layout_options;  // by name: what was given
  std::optional<bool> rotate;
  std::optional<size_t> context;  // 0: what the model was made for
  int threads = 0;

  /// `of_many`: options of plans for many sequences too.
  void add_to(CLI::App& command, bool of_many = false);
  /// The values of a layout's option that were given. Throws Error where one is none.
  std::vector<int64_t> given(const LayoutOption& option) const;
  /// Throws Error where an option was given that no layout among these has.
  void check_given(std::span<const std::string_view> layouts) const;
  /// For this model; a context of 0 where no flag gave one.
  RunOptions options(const Metadata& model) const;
};

/// Adds a subcommand whose callback does the work; one function a subcommand, each in its own file.
void add_run(CLI::App& app);
void add_chat(CLI::App& app);
void add_completion(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_detokenize(CLI::App& app);
void add_logits(CLI::App& app);
void add_info(CLI::App& app);
void add_plan(CLI::App& app);
void add_convert(CLI::App& app);
void add_compile(CLI::App& app);
void add_bench(CLI::App& app);
void add_verify(CLI::App& app);
void add_verify_layouts(CLI::App& verify);
void add_verify_trace(CLI::App& verify);
void add_ring(CLI::App& app);
void add_ring_demo(CLI::App& ring);
void add_ring_plan(CLI::App& ring);
void add_ring_overlap(CLI::App& ring);
void add_eval(CLI::App& app);
void add_eval_perplexity(CLI::App& eval);
void add_eval_kl(CLI::App& eval);
void add_eval_needle(CLI::App& eval);
void add_eval_report(CLI::App& eval);

/// A whole number in [low, high]; CLI11 alone would take -1 for the largest unsigned one.
CLI::Validator whole_number(int64_t low, int64_t high);
/// A finite number in [low, high]: NaN is in no range.
CLI::Validator number(double low, double high);
constexpr int64_t kManyTokens = int64_t{1} << 40;

/// Names of the formats that a cache holds K and V in.
std::vector<std::string> cache_formats();

/// The model that ships with the program, a text of its kind that it has not seen, and the model that ships to measure
/// caches with (models/needle.md).
std::string bundled_model();
std::string heldout_text();
std::string needle_model();

/// The same path. Throws Error where it is a file that this command has open to read, the model for example.
const std::string& path_to_write(const std::string& path);

/// Prints one JSON object and a newline to stdout.
void print_json(const Json& object);

/// A text of arbitrary bytes as JSON may hold it: what is not UTF-8 becomes U+FFFD.
std::string valid_utf8(const std::string& text);

/// Warns where more tokens of context are asked for than the model was made for.
void warn_beyond_context(size_t context, size_t made_for);

/// Bytes for people: "1.24 GB".
std::string human_bytes(size_t bytes);

/// The bytes of a file, or of stdin where the path is "-"; what to call that in messages.
std::string read_text(const std::string& path);
std::string name_of_input(const std::string& path);

}  // namespace contexture::cli
