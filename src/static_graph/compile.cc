#include "static_graph/compile.h"

#include <filesystem>
#include <memory>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/gguf_writer.h"
#include "model/weights.h"
#include "static_graph/calibrate.h"
#include "static_graph/constant_data.h"
#include "static_graph/constants.h"
#include "static_graph/context_manifest.h"

namespace contexture {
namespace {

namespace fs = std::filesystem;

/// A directory being written that gets its name when it is whole. Until then it is PATH.partial-RANDOM, which does
/// not outlive a failure: what was there before stays, and its permissions with what replaces it.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::string path) : path_(std::move(path)) {
    while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
    std::error_code error;
    if (fs::exists(path_, error) && !replaceable()) {
      fail("{} is there and is no compiled model; give another directory", printable(path_, 400));
    }
    partial_ = name_beside(path_, "partial");
    if (!fs::create_directory(partial_, error)) {
      fail("cannot create {}: {}; check the folder and its permissions", printable(partial_, 400), error.message());
    }
  }
  ~AtomicFolder() {
    std::error_code ignored;
    if (!published_) fs::remove_all(partial_, ignored);
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::string& folder() const { return partial_; }
  std::string file(const std::string& name) const { return partial_ + "/" + name; }

  void publish() {
    std::error_code error;
    const std::string old = partial_ + ".old";
    const bool replaces = fs::exists(path_, error);
    if (replaces) {
      fs::permissions(partial_, fs::status(path_, error).permissions(), error);
      fs::rename(path_, old, error);
    }
    if (!error) {
      fs::rename(partial_, path_, error);
      std::error_code ignored;
      if (error && replaces) fs::rename(old, path_, ignored);
    }
    if (error) fail("cannot replace {}: {}; check what is there", printable(path_, 400), error.message());
    published_ = true;
    fs::remove_all(old, error);
  }

 private:
  bool replaceable() const {
    std::error_code error;
    return fs::is_directory(path_, error) &&
           (fs::is_empty(path_, error) || fs::exists(path_ + "/manifest.json", error));
  }

  std::string path_, partial_;
  bool published_ = false;
};

void write_text(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.publish();
}

class Compiler {
 public:
  Compiler(const ModelFile& file, const CompileTask& task, ThreadPool& pool)
      : file_(file), task_(task), pool_(pool), config_(read_config(file.metadata)) {
    check_weights(file_, config_);
    check_can_compile(config_, task_.context);
    if (task_.context < 2) fail("a context of {}; give at least 2", task_.context);
    if (task_.mode == GraphMode::hybrid && (task_.prefill_length < 2 || task_.prefill_length >= task_.context)) {
      fail("a prefill length of {} in a context of {}; give 2 to {}", task_.prefill_length, task_.context,
           task_.context - 1);
    }
    shards_ = split_layers(config_.layers, task_.shards);
    options_ = {.context = task_.context,
                .prefill_length = task_.mode == GraphMode::kv        ? 0
                                  : task_.mode == GraphMode::prefill ? task_.context
                                                                     : task_.prefill_length,
                .decode = task_.mode != GraphMode::prefill,
                .per_head = task_.per_head,
                .recipe = task_.recipe};
  }

  Compilation run() {
    const ConstantData data(file_, config_, task_.context, pool_);
    AtomicFolder folder(task_.out);
    Ranges ranges;
    if (task_.recipe.fixed_point) {
      if (task_.calibration.empty()) {
        fail("the recipe {} needs a calibration: give --calibration FILE, a text of the kind that the model will see",
             task_.recipe.name);
      }
      ranges = calibrate(file_, config_, data,
                         {.tokens = task_.calibration,
                          .context = task_.context,
                          .progress = [&](size_t done, size_t total) { progress("calibrating", done, total); },
                          .cancelled = task_.cancelled},
                         pool_);
    }
    ContextManifest manifest = description();
    for (const ShardRange& range : shards_) manifest.shards.push_back(write_shard(folder, data, range, ranges));
    if (!task_.tokenizer.entries().empty()) {
      write_gguf(folder.file("tokenizer.gguf"), task_.tokenizer, {});
      manifest.tokenizer = identify(folder, "tokenizer.gguf");
    }
    write_text(folder.file(kManifestName), manifest_text(manifest));
    folder.publish();
    return {.shards = shards_.size(), .bytes = bytes_};
  }

 private:
  void progress(std::string_view what, size_t done, size_t total) const {
    if (task_.progress) task_.progress(what, done, total);
  }

  ContextManifest::File identify(const AtomicFolder& folder, const std::string& name) {
    ContextManifest::File file = identify_file(folder.folder(), name);
    bytes_ += file.bytes;
    return file;
  }

  ContextManifest::Shard write_shard(const AtomicFolder& folder, const ConstantData& data, const ShardRange& range,
                                     const Ranges& ranges) {
    const ShardDraft draft = build_shard(file_, config_, range, options_, ranges);
    size_t total = 0, done = 0;
    for (const GraphConstant& c : draft.program.constants) total += constant_bytes(c);
    const std::string binary = shard_binary_name(range.index), json = shard_json_name(range.index);
    const std::string what = fmt::format("shard {} of {}", range.index + 1, range.count);
    write_container(folder.file(binary), draft.program, [&](size_t constant, const ConstantSink& write) {
      data.produce(draft, constant, [&](std::span<const std::byte> piece) {
        if (task_.cancelled && *task_.cancelled) fail("interrupted; {} is not written", printable(task_.out, 400));
        write(piece);
        done += piece.size();
        progress(what, done, total);
      });
    });
    write_text(folder.file(json), description_json(draft.program, task_.version));
    return {.binary = identify(folder, binary),
            .json = identify(folder, json),
            .first_layer = range.first_layer,
            .layers = range.layers};
  }

  ContextManifest description() const {
    return {.model = fmt::format("{}, {} layers of {}", config_.family, config_.layers, config_.dim),
            .mode = std::string(name(task_.mode)),
            .recipe = task_.recipe.name,
            .kv_layout = task_.per_head ? "per-head" : "per-layer",
            .context = options_.context,
            .prefill_length = options_.prefill_length,
            .kv_bits = task_.recipe.kv_bits,
            .layers = config_.layers};
  }

  const ModelFile& file_;
  const CompileTask& task_;
  ThreadPool& pool_;
  ModelConfig config_;
  GraphOptions options_;
  std::vector<ShardRange> shards_;
  size_t bytes_ = 0;
};

}  // namespace

Compilation compile_model(const ModelFile& file, const CompileTask& task, ThreadPool& pool) {
  return Compiler(file, task, pool).run();
}

}  // namespace contexture
