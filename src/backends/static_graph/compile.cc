#include "backends/static_graph/compile.h"

#include <deque>
#include <filesystem>
#include <memory>
#include <set>
#include <string_view>

#include "backends/static_graph/calibrate.h"
#include "backends/static_graph/constant_data.h"
#include "backends/static_graph/constants.h"
#include "backends/static_graph/context_manifest.h"
#include "base/atomic_file.h"
#include "base/error.h"
#include "files/gguf_writer.h"
#include "model/weights.h"

namespace contexture {
namespace {

namespace fs = std::filesystem;

/// What `compile` wrote before may be replaced by what it writes now, and nothing else: no other file goes with it.
bool is_compiled_model(const fs::path& folder) {
  try {
    const fs::path path = folder / kManifestName;
    const MappedFile file(path.string());
    const std::span<const std::byte> bytes = file.bytes();
    const ContextManifest manifest =
        parse_manifest({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
    std::set<std::string> names = {kManifestName, manifest.tokenizer.name};
    for (const ContextManifest::Shard& shard : manifest.shards) names.insert({shard.binary.name, shard.json.name});
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      const bool is_its_own = names.contains(entry.path().filename().string()) && entry.is_regular_file();
      if (!is_its_own) return false;
    }
    return true;
  } catch (const std::exception&) {  // no manifest, or none that can be read
    return false;
  }
}

/// A directory being written that gets its name when it is whole. Until then it is PATH.partial-RANDOM, which does
/// not outlive a failure: what was there before stays, and its permissions with what replaces it.
class AtomicFolder {
 public:
  explicit AtomicFolder(const std::string& path) : path_(through_links(without_slashes(path))) {
    std::error_code error;
    if (fs::exists(path_, error) && !(fs::is_directory(path_, error) && fs::is_empty(path_, error)) &&
        !is_compiled_model(path_)) {
      fail("{} is there and is no compiled model, or holds other files too; give another directory",
           printable(path, 400));
    }
    const std::string partial = name_beside(path_, "partial");
    if (!fs::create_directory(partial, error)) {
      fail("cannot create {}: {}; check the folder and its permissions", printable(partial, 400), error.message());
    }
    partial_.emplace_back(partial);
  }
  ~AtomicFolder() {
    while (!partial_.empty()) partial_.pop_back();  // the folder last
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::string& folder() const { return partial_.front().path(); }
  /// The path of a file to be written.
  std::string file(const std::string& name) { return partial_.emplace_back(folder() + "/" + name).path(); }

  void publish() {
    std::error_code error;
    const std::string old = folder() + ".old";
    const bool replaces = fs::exists(path_, error);
    if (replaces) {
      fs::permissions(folder(), fs::status(path_, error).permissions(), error);
      fs::rename(path_, old, error);
    }
    if (!error) {
      fs::rename(folder(), path_, error);
      std::error_code ignored;
      if (error && replaces) fs::rename(old, path_, ignored);
    }
    if (error) fail("cannot replace {}: {}; check what is there", printable(path_, 400), error.message());
    for (PartialPath& path : partial_) path.keep();
    if (replaces) fs::remove_all(old, error);
  }

 private:
  static std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    return path;
  }

  std::string path_;
  std::deque<PartialPath> partial_;  // the folder, then its files
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

  ContextManifest::Shard write_shard(AtomicFolder& folder, const ConstantData& data, const ShardRange& range,
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
