#include "backends/static_graph/compile.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "cli/command.h"
#include "model/config.h"

namespace contexture::cli {
namespace {

/// What tokenizer.gguf holds: the model's vocabulary, and what else it says of its tokens.
Metadata tokenizer_metadata(const std::string& model, const std::string& tokenizer) {
  const ModelFile file = open_model(model);
  Metadata metadata;
  metadata.set_string("general.architecture", file.metadata.get_string("general.architecture"));
  for (const auto& [key, value] : file.metadata.entries()) {
    if (key.starts_with("tokenizer.")) metadata.set(key, value);
  }
  const std::optional<Vocabulary> vocabulary = find_vocabulary(file, tokenizer);
  if (!vocabulary) return {};
  if (!tokenizer.empty() || !metadata.has("tokenizer.ggml.tokens")) vocabulary_to_metadata(*vocabulary, metadata);
  return metadata;
}

/// A line that says what is being done; gone when this is.
class PhaseLine {
 public:
  void show(std::string_view what, size_t done, size_t total) {
    const size_t percent = total ? done * 100 / total : 100;
    if (!is_terminal_ || (what == what_ && percent == percent_)) return;
    what_ = what;
    percent_ = percent;
    tell("\r\x1b[K{}: {} %", what, percent);
  }
  ~PhaseLine() {
    if (!what_.empty()) tell("\r\x1b[K");
  }

 private:
  bool is_terminal_ = isatty(STDERR_FILENO);
  std::string what_;
  size_t percent_ = 0;
};

struct Compile {
  ModelFlags model;
  CompileTask task;
  std::string mode = "hybrid", recipe = "16a4w-block", keep, calibration, kv_layout = "per-head";
  size_t block = 32, kv_bits = 8, calibration_tokens = 16384;
  int threads = 0;

  void run() {
    catch_interrupts();
    task.mode = *graph_mode_named(mode);
    task.recipe = parse_recipe(recipe, keep, block, kv_bits);
    task.per_head = kv_layout == "per-head";
    task.version = CONTEXTURE_VERSION;
    task.cancelled = &interrupted();
    const auto start = std::chrono::steady_clock::now();
    OpenedModel opened = model.open();
    if (!calibration.empty() && task.recipe.fixed_point) {
      task.calibration = opened.need_tokenizer().encode(read_text(calibration));
      if (task.calibration.size() > calibration_tokens) {
        tell("calibrating with the first {} of {} tokens\n", calibration_tokens, task.calibration.size());
        task.calibration.resize(calibration_tokens);
      }
    }
    task.tokenizer = tokenizer_metadata(opened.file.path, model.tokenizer);
    ThreadPool pool(threads ? threads : physical_cores());
    const Compilation made = [&] {
      PhaseLine line;
      task.progress = [&](std::string_view what, size_t done, size_t total) { line.show(what, done, total); };
      return compile_model(opened.file, task, pool);
    }();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (model.json) {
      print_json({{"shards", made.shards}, {"bytes", made.bytes}, {"seconds", seconds}});
    } else {
      fmt::print("{}: {} shard{}, {} in {:.1f} s\n", task.out, made.shards, made.shards == 1 ? "" : "s",
                 human_bytes(made.bytes), seconds);
    }
  }
};

}  // namespace

void add_compile(CLI::App& app) {
  CLI::App* command = app.add_subcommand("compile", "write a model as graphs of fixed shapes, cut into shards");
  auto self = std::make_shared<Compile>();
  self->model.add_to(*command);
  command->add_option("-o,--output", self->task.out, "directory to write")->required()->option_text("DIR REQUIRED");
  command->add_option("--shards", self->task.shards, "files that the layers are cut into")
      ->capture_default_str()
      ->check(whole_number(1, 1 << 20));
  command->add_option("-c,--context", self->task.context, "tokens of context")
      ->capture_default_str()
      ->check(whole_number(2, 1 << 17));
  command->add_option("--prefill-length", self->task.prefill_length, "tokens of prefill_forward (hybrid)")
      ->capture_default_str()
      ->check(whole_number(2, 1 << 17));
  command
      ->add_option("--mode", self->mode,
                   "hybrid: both graphs; kv: kv_forward alone; prefill: the whole context at once")
      ->capture_default_str()
      ->check(CLI::IsMember({"hybrid", "kv", "prefill"}));
  command->add_option("--recipe", self->recipe, "how numbers are stored")
      ->capture_default_str()
      ->check(CLI::IsMember(recipe_names()));
  command->add_option("--block", self->block, "inputs that share a factor (16a4w-block)")
      ->capture_default_str()
      ->check(CLI::IsMember({16, 32, 64}));
  command->add_option("--keep", self->keep, "bits of single linears: output=8,ffn_down[0-3]=8")->option_text("LIST");
  command->add_option("--kv-bits", self->kv_bits, "bits of K and V")
      ->capture_default_str()
      ->check(CLI::IsMember({8, 16}));
  command
      ->add_option("--kv-layout", self->kv_layout,
                   "a KV tensor a head, for every --kv-updater, or a layer, for smart-mask alone")
      ->capture_default_str()
      ->check(CLI::IsMember({"per-head", "per-layer"}));
  command->add_option("--calibration", self->calibration, "text whose ranges fixed-point numbers take")
      ->option_text("FILE");
  command->add_option("--calibration-tokens", self->calibration_tokens, "of the text, at most")
      ->capture_default_str()
      ->check(whole_number(1, kManyTokens));
  command->add_option("-t,--threads", self->threads, "threads (default: physical cores)")->check(whole_number(1, 1024));
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
