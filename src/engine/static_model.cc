#include "engine/static_model.h"

#include "base/error.h"
#include "base/log.h"

namespace contexture {
namespace {

void log_lines(LogLevel level, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    log(level, "{}", text.substr(at, end - at));
    at = end + 1;
  }
}

std::string tokenizer_of(const ContextDirectory& directory, const std::string& given) {
  if (!given.empty()) return given;
  const std::optional<std::string> inside = directory.tokenizer_path();
  if (!inside) fail("{} has no tokenizer; name one with --tokenizer PATH", printable(directory.path(), 400));
  return *inside;
}

}  // namespace

StaticModel::StaticModel(const StaticLoadOptions& options)
    : directory_(options.directory), opened_(open_with_tokenizer(tokenizer_of(directory_, options.tokenizer_path))) {
  const int threads = options.threads > 0 ? options.threads : physical_cores();
  runner_ = std::make_unique<StaticRunner>(GraphBackend::load(options.backend), directory_.shards(),
                                           StaticRunOptions{.update = options.update,
                                                            .mode = options.mode,
                                                            .threads = static_cast<uint32_t>(threads),
                                                            .log_level = options.log_level});
  directory_.check(*runner_);
  executor_.emplace(*runner_);
  const StaticShape& shape = runner_->shape();
  const StaticRunner::Memory memory = runner_->memory();
  log_info("{}: {}, {} shards of {} layers, context {}, mode {}", directory_.path(), directory_.manifest().recipe,
           directory_.manifest().shards.size(), fmt::join(shape.layers_of_shard, "+"), shape.context,
           name(runner_->mode()));
  log_lines(LogLevel::info, describe(runner_->kv()));
  log_info("shared buffers: {} B beside K and V; {} views registered", memory.io, memory.registered);
  for (const Shard& shard : runner_->shards()) log_lines(LogLevel::debug, describe(shard));
}

}  // namespace contexture
