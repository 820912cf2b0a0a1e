#include "engine/convert.h"

#include <chrono>

#include "base/error.h"
#include "base/thread_pool.h"
#include "cli/command.h"
#include "cli/progress_line.h"

namespace contexture::cli {
namespace {

std::vector<std::string> output_types() {
  std::vector<std::string> names;
  for (const FormatInfo& f : weight_formats()) {
    if (can_convert_to(f.format)) names.emplace_back(f.name);
  }
  return names;
}

struct Convert {
  ConvertTask task;
  std::string type;
  bool json = false;

  static Json formats_of(const Conversion& made) {
    Json j = Json::object();
    for (const auto& [format, tensors] : made.formats) j[std::string(name(format))] = tensors;
    return j;
  }

  static Json fallbacks_of(const Conversion& made) {
    Json j = Json::array();
    for (const auto& [wanted, written, tensors] : made.fallbacks) {
      j.push_back({{"wanted", name(wanted)}, {"written", name(written)}, {"tensors", tensors}});
    }
    return j;
  }

  void run() {
    catch_interrupts();
    if (!type.empty()) task.type = format_from_name(type);
    if (task.threads == 0) task.threads = physical_cores();
    task.cancelled = &interrupted();
    const auto start = std::chrono::steady_clock::now();
    const Conversion made = [&] {
      ProgressLine line("writing", "MB", 0);
      task.progress = [&](size_t done, size_t total) { line.show(done / 1000000, total / 1000000); };
      return convert_model(task);
    }();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (json) {
      print_json({{"tensors", made.tensors},
                  {"bytes", made.bytes},
                  {"seconds", seconds},
                  {"formats", formats_of(made)},
                  {"fallbacks", fallbacks_of(made)}});
    } else {
      fmt::print("{}: {} tensors, {} in {:.1f} s\n", task.out, made.tensors, human_bytes(made.bytes), seconds);
    }
  }
};

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* command = app.add_subcommand("convert", "write any model that can be read as one GGUF file");
  auto self = std::make_shared<Convert>();
  command
      ->add_option(
          "IN", self->task.in,
          "a Hugging Face directory, a directory with params.json and a PyTorch checkpoint, a llama2.c .bin, or "
          "a GGUF file")
      ->required();
  command->add_option("OUT", self->task.out, "the GGUF file to write")->required()->option_text("OUT.gguf REQUIRED");
  command->add_option("--type", self->type, "format of the matrices (default: each keeps its own)")
      ->check(CLI::IsMember(output_types()));
  command->add_option("--tokenizer", self->task.tokenizer, "tokenizer, where it is neither in the model nor beside it")
      ->option_text("PATH");
  command->add_flag("--force", self->task.force, "replaces an OUT that is no GGUF model");
  command->add_option("-t,--threads", self->task.threads, "threads (default: physical cores)")
      ->check(whole_number(1, 1024));
  command->add_flag("--json", self->json, "print one JSON object and nothing else on stdout");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
