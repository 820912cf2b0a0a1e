#include "backends/ring/sharding.h"
#include "base/error.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

struct Plan {
  ModelFlags model;
  CacheFlags cache;
  size_t memory = 0, swap_memory = 0, sequences = 1, ranks = 1;
  bool session = false;

  void run() const {
    const ModelFile file = open_model(model.model, {.weights = false});
    RunOptions options = cache.options(file.metadata);
    if (options.cache.context == 0) options.cache.context = read_config(file.metadata).context;
    options.cache.sequences = options.logit_rows = sequences;
    options.cache.resumable = session;
    options.ranks = ranks;
    options.swap_bytes = swap_memory;
    const MemoryPlan plan = plan_memory(file, options);
    const size_t max_context = memory ? longest_context(file, options, memory) : plan.config.context;
    if (model.json) {
      Json j = {{"weights_bytes", plan.weights_bytes},     {"cache_bytes", plan.cache_bytes},
                {"workspace_bytes", plan.workspace_bytes}, {"swap_bytes", plan.swap_bytes},
                {"total_bytes", plan.total_bytes()},       {"max_context", max_context}};
      if (ranks > 1) j["ranks"] = ranks, j["tokens_a_rank"] = most_held(plan.cache.context, ranks, plan.ring.dealing);
      if (file.absent) j["weights_absent"] = valid_utf8(file.absent->why);
      print_json(j);
    } else {
      if (file.absent) fmt::print("{}\n", file.absent->why);
      print(plan, max_context);
    }
  }

  /// Runs of layers that take the same bytes, one line each.
  template <class Line>
  static void print_layers(const WeightBytes& weights, const Line& line) {
    size_t in_layers = 0;
    for (size_t first = 0, last = 0; first < weights.of_layer.size(); first = last) {
      while (last < weights.of_layer.size() && weights.of_layer[last] == weights.of_layer[first]) ++last;
      const std::string layers = last - first == 1 ? fmt::format("  layer {}", first)
                                                   : fmt::format("  layers {} to {}, each", first, last - 1);
      line(layers, weights.of_layer[first], "");
      in_layers += weights.of_layer[first] * (last - first);
    }
    line("  embedding and output", weights.packed - in_layers, "");
  }

  void print(const MemoryPlan& plan, size_t max_context) const {
    if (ranks > 1) {
      const bool balanced = plan.ring.dealing == Dealing::balanced;
      fmt::print(
          "each of {} ranks: all weights, and up to {} of {} tokens of a sequence (dealt {}: no rank holds more than "
          "{} "
          "more than another)\n",
          ranks, most_held(plan.cache.context, ranks, plan.ring.dealing), plan.cache.context,
          balanced ? "in 2N chunks a prompt" : "by position",
          balanced ? "1 token" : fmt::format("{} tokens", kDealtRun));
    }
    const auto line = [](std::string_view what, size_t bytes, std::string_view note) {
      fmt::print("{:<24} {:>16} B  {:>8}{}{}\n", what, bytes, human_bytes(bytes), note.empty() ? "" : "  ", note);
    };
    for (const FormatInfo& f : weight_formats()) {
      const size_t bytes = plan.weights.of_format[static_cast<size_t>(f.format)];
      if (bytes > 0) line(fmt::format("weights {}", f.name), bytes, "arranged for products");
    }
    print_layers(plan.weights, line);
    line("weights norms", plan.weights.copied, "f32");
    const CacheShape& shape = plan.cache.shape;
    line("cache", plan.cache_bytes,
         fmt::format("{}; {} layers of {}", describe(plan.cache), shape.layers,
                     human_bytes(plan.cache_bytes / shape.layers)));
    line("workspace", plan.workspace_bytes,
         fmt::format(
             "steps of {} tokens, {} threads{}", plan.workspace.tokens, plan.workspace.threads,
             ranks > 1 ? fmt::format("; {} for what travels", human_bytes(RingAttention::bytes_for(plan.ring))) : ""));
    if (plan.swap_bytes > 0) line("swap space", plan.swap_bytes, "contexts of texts that make room");
    line("total", plan.total_bytes(), ranks > 1 ? "a rank; ranks in one process share the weights" : "");
    if (memory) {
      fmt::print("longest context in {}: {} tokens (the model was made for {})\n", human_bytes(memory), max_context,
                 plan.config.context);
    } else {
      fmt::print("the model was made for a context of {} tokens; --memory BYTES tells what fits\n",
                 plan.config.context);
    }
  }
};

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* command = app.add_subcommand("plan", "the exact memory of a run, before anything is loaded");
  auto self = std::make_shared<Plan>();
  self->model.add_to(*command);
  self->cache.add_to(*command, /*of_many=*/true);
  command->get_option("--context")->description("tokens of context (default: what the model was made for)");
  const auto bytes = [&](const char* flag, size_t& value, const char* what) {
    command->add_option(flag, value, what)
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
        ->check([](const std::string& text) { return std::string(text.starts_with('-') ? "it is not negative" : ""); });
  };
  bytes("--memory", self->memory, "bytes, e.g. 4GB; prints the longest context that fits");
  bytes("--swap-memory", self->swap_memory,
        "bytes for contexts of texts that make room for older ones, beside the cache (default 0: their tokens are run "
        "again)");
  command->add_option("--sequences", self->sequences, "sequences at once")
      ->check(whole_number(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--ring", self->ranks, "ranks that share the context: the bytes are those of one of them")
      ->check(whole_number(1, 4096))
      ->option_text("N");
  command->add_flag("--session", self->session,
                    "as run --session holds it: a mixed cache then keeps every token cold too, for a longer context");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
