// A session file, version 3. All numbers are little-endian; sections follow each other without gaps:
//
//   header      344 bytes: struct Header below
//   tokens      i32 each, then the bytes of the text that was shown after them, then the layout's options as text
//               (row_options), then zeros up to a multiple of 16 bytes
//   layers      for every layer, its rows as the cache held them: run after run (the header lists them) K (kv_heads,
//               tokens) rows, then V (kv_heads, tokens) rows, each from a multiple of 16 bytes on; the bytes of a row
//               are described in tensor/kv_row.h
//
// Each section ends with 16 bytes more: the XXH3-128 of its bytes, low half first, seeded with its number (header 0,
// tokens 1, layers from 2 on), so that sections that changed places are found too. The file ends with the last one.
//
// Version 2, which is read, had a mixed cache's hot and sink tokens in the header in place of the options as text.

#include "engine/session.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstring>
#include <memory>
#include <type_traits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "cache/layout.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

static_assert(std::endian::native == std::endian::little, "session files are read in place");

constexpr char kMagic[] = {'C', 'T', 'X', 'S', 'E', 'S', 'S', 'N'};
constexpr uint32_t kVersion = 3, kOldestVersion = 2;
constexpr size_t kChecksumBytes = 16;

template <size_t size>
struct Name {
  char text[size];  // padded with zeros

  void set(std::string_view from) {
    std::memset(text, 0, size);
    from.copy(text, size);
  }
  std::string get() const { return {text, strnlen(text, size)}; }
};

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t rotation;  // 1: K is rotated, 2: V
  Digest model;       // engine/model_identity.h
  uint64_t rope;
  uint64_t length;  // tokens whose K and V are held
  uint64_t tokens;  // tokens of the text: at least as many
  uint64_t seed, draws;
  uint64_t option_bytes;  // version 2: a mixed cache's hot tokens
  uint64_t sink_tokens;   // version 2: likewise; else 0
  uint32_t layers, kv_heads, head_dim;
  uint32_t runs;  // 0 to 3
  Name<16> layout;
  struct Run {
    uint64_t first, count;  // tokens
    Name<8> k_format, v_format;
    uint64_t cold;  // 1: of a mixed cache's cold part
  } run[kMostSavedRuns];
  Name<64> model_name;
  uint64_t open_tokens, shown_bytes;  // Resume
  uint64_t cut_bytes;                 // of the text after the tokens
  uint64_t clamped_values, context;
};
static_assert(std::has_unique_object_representations_v<Header> && sizeof(Header) == 344);

Digest checksum(std::span<const std::byte> bytes, uint64_t section) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), section);
  return {hash.low64, hash.high64};
}

/// Takes a session file apart; nothing is believed before its checksum has been verified.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& path, bool verify)
      : bytes_(bytes), path_(path), verify_(verify) {}

  SessionFile read() {
    const Header header = read_header();
    SessionFile session = meaning_of(header);
    SavedContext& context = session.context;
    try {
      context.check();
    } catch (const Error& error) {
      refuse(error.what());
    }
    // The token ids alone take more bytes than the length has tokens, so that no product below can be beyond the file
    // and unnoticed: check() has counted each in 64 bits.
    const size_t option_bytes = header.version == 2 ? 0 : header.option_bytes;
    const size_t id_bytes = header.tokens * sizeof(TokenId), text_at = id_bytes + header.cut_bytes;
    const size_t token_bytes = saved_aligned(text_at + option_bytes);
    const size_t layer_bytes = context.layer_bytes() + kChecksumBytes;
    const size_t fixed = sizeof(Header) + token_bytes + 2 * kChecksumBytes;
    size_t size = 0;
    if (__builtin_mul_overflow(layer_bytes, context.layers, &size) || __builtin_add_overflow(size, fixed, &size) ||
        size != bytes_.size()) {
      refuse(fmt::format("it has {} bytes and should have {}", bytes_.size(), size));
    }
    const auto tokens = section(sizeof(Header) + kChecksumBytes, token_bytes, 1, "its token ids");
    session.state.tokens.resize(header.tokens);
    std::ranges::copy(tokens.first(id_bytes), std::as_writable_bytes(std::span(session.state.tokens)).begin());
    session.state.cut_text.assign(reinterpret_cast<const char*>(tokens.data()) + id_bytes, header.cut_bytes);
    if (option_bytes > 0) session.options.assign(reinterpret_cast<const char*>(tokens.data()) + text_at, option_bytes);
    session.layers = bytes_.subspan(fixed);
    for (size_t layer = 0; layer < context.layers; ++layer) {
      section(fixed + layer * layer_bytes, layer_bytes - kChecksumBytes, 2 + layer, "the K and V of a layer");
    }
    return session;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail_as(ErrorKind::damaged, "session {} is damaged: {}; delete it and run its text again", printable(path_, 400),
            what);
  }

  std::span<const std::byte> section(size_t at, size_t size, uint64_t number, std::string_view what) const {
    const std::span<const std::byte> bytes = bytes_.subspan(at, size);
    Digest written;
    std::memcpy(&written, bytes_.data() + at + size, sizeof(written));
    if (verify_ && written != checksum(bytes, number)) refuse(fmt::format("the checksum of {} does not match", what));
    return bytes;
  }

  Header read_header() const {
    if (bytes_.size() < sizeof(kMagic) || std::memcmp(bytes_.data(), kMagic, sizeof(kMagic)) != 0) {
      fail_as(ErrorKind::damaged, "{} is no session file; give another path with --session, or delete it",
              printable(path_, 400));
    }
    if (bytes_.size() < sizeof(Header) + kChecksumBytes) refuse("it is cut off");
    Header header;
    std::memcpy(&header, bytes_.data(), sizeof(header));
    if (header.version < kOldestVersion || header.version > kVersion) {
      fail_as(
          ErrorKind::damaged,
          "session {} is of version {}, and this program knows versions {} to {}; use the program that wrote it, or "
          "delete it",
          printable(path_, 400), header.version, kOldestVersion, kVersion);
    }
    section(0, sizeof(Header), 0, "its header");
    return header;
  }

  SessionFile meaning_of(const Header& h) const {
    if (h.tokens > bytes_.size() / sizeof(TokenId) || h.length > h.tokens || h.draws > h.tokens ||
        h.open_tokens > h.tokens || h.cut_bytes > bytes_.size()) {
      refuse(fmt::format("it cannot hold {} tokens", h.tokens));
    }
    const bool has_text = h.version >= 3;
    if (h.runs > kMostSavedRuns || h.rotation > 3 ||
        (has_text && (h.option_bytes > bytes_.size() || h.sink_tokens != 0))) {
      refuse("its header makes no sense");
    }
    SessionFile s{.path = path_,
                  .model = h.model,
                  .rope = h.rope,
                  .model_name = h.model_name.get(),
                  .layout = h.layout.get(),
                  .options = {},
                  .state = {.seed = h.seed,
                            .resume = {.draws = h.draws, .open_tokens = h.open_tokens, .shown_bytes = h.shown_bytes},
                            .clamped_values = h.clamped_values,
                            .context = h.context},
                  .context = {.layers = h.layers,
                              .kv_heads = h.kv_heads,
                              .head_dim = h.head_dim,
                              .rotation = {.k = (h.rotation & 1) != 0, .v = (h.rotation & 2) != 0},
                              .length = static_cast<int64_t>(h.length),
                              .runs = {}},
                  .layers = {}};
    if (!has_text && s.layout == "mixed")
      s.options = fmt::format("hot_tokens={} sink_tokens={}", h.option_bytes, h.sink_tokens);
    for (const Header::Run& run : std::span(h.run).first(h.runs)) {
      const std::optional<Format> k = format_from_name(run.k_format.get()), v = format_from_name(run.v_format.get());
      if (!k || !v || run.first > h.length || run.count > h.length || run.cold > 1) {
        refuse("its header makes no sense");
      }
      s.context.runs.push_back(
          {*k, *v, run.cold != 0, static_cast<int64_t>(run.first), static_cast<int64_t>(run.count)});
    }
    return s;
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  bool verify_;
};

/// Writes sections in large pieces, each with its checksum behind it.
class Writer {
 public:
  explicit Writer(const std::string& path) : file_(path, FileAccess::owner_only), hash_(XXH3_createState()) {
    buffer_.reserve(kBuffer);
  }

  void begin() { XXH3_128bits_reset_withSeed(hash_.get(), sections_++); }
  void write(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    XXH3_128bits_update(hash_.get(), bytes.data(), bytes.size());
    put(bytes);
  }
  void end() {
    const XXH128_hash_t hash = XXH3_128bits_digest(hash_.get());
    const Digest digest{hash.low64, hash.high64};
    put(std::as_bytes(std::span(&digest, 1)));
  }
  void publish() {
    flush();
    file_.publish();
  }

 private:
  static constexpr size_t kBuffer = size_t{1} << 20;
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  void put(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > kBuffer) flush();
    if (bytes.size() >= kBuffer) return file_.write(bytes);
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  void flush() {
    file_.write(buffer_);
    buffer_.clear();
  }

  AtomicFile file_;
  std::vector<std::byte> buffer_;
  std::unique_ptr<XXH3_state_t, Free> hash_;
  uint64_t sections_ = 0;
};

Header header_of(const HeldContext& held, const SessionState& state, const Digest& model,
                 const std::string& model_name) {
  const SavedContext& saved = held.context;
  assert(saved.runs.size() <= kMostSavedRuns && static_cast<size_t>(saved.length) <= state.tokens.size());
  Header header{};
  std::copy(std::begin(kMagic), std::end(kMagic), header.magic);
  header.version = kVersion;
  header.rotation = (saved.rotation.k ? 1u : 0u) | (saved.rotation.v ? 2u : 0u);
  header.model = model;
  header.rope = held.rope;
  header.length = static_cast<uint64_t>(saved.length);
  header.tokens = state.tokens.size();
  header.seed = state.seed;
  header.draws = std::min<uint64_t>(state.resume.draws, state.tokens.size());
  header.open_tokens = state.resume.open_tokens;
  header.shown_bytes = state.resume.shown_bytes;
  header.cut_bytes = state.cut_text.size();
  header.clamped_values = state.clamped_values;
  header.context = state.context;
  header.option_bytes = held.options.size();
  header.layers = static_cast<uint32_t>(saved.layers);
  header.kv_heads = static_cast<uint32_t>(saved.kv_heads);
  header.head_dim = static_cast<uint32_t>(saved.head_dim);
  header.runs = static_cast<uint32_t>(saved.runs.size());
  header.layout.set(held.layout);
  header.model_name.set(model_name);
  for (size_t r = 0; r < saved.runs.size(); ++r) {
    const SavedRun& run = saved.runs[r];
    header.run[r] = {static_cast<uint64_t>(run.first), static_cast<uint64_t>(run.count), {}, {}, run.cold};
    header.run[r].k_format.set(name(run.k_format));
    header.run[r].v_format.set(name(run.v_format));
  }
  return header;
}

/// As describe(CachePlan).
std::string describe(const SessionFile& session) {
  std::string text = fmt::format("{}, {} tokens", session.layout, session.context.length);
  for (const SavedRun& run : session.context.runs) {
    const std::string formats =
        fmt::format(", {}K {} V {}", run.cold ? "cold " : "", name(run.k_format), name(run.v_format));
    if (text.find(formats) == std::string::npos) text += formats;
  }
  if (!session.options.empty()) text += ", " + session.options;
  return printable(text + describe(session.context.rotation), 400);
}

/// Whether a context was computed with a cache in which the same tokens have the same bits.
bool computed_alike(const SessionFile& session, const CachePlan& plan) {
  const auto was = std::ranges::find(all_layouts(), session.layout, &CacheLayout::name);
  if (was == all_layouts().end()) return false;
  if (!(*was)->has_own_rows && !layout_of(plan).has_own_rows) return true;
  return session.layout == plan.layout && session.options == row_options(plan, /*numbers_only=*/true);
}

}  // namespace

SessionFile read_session(std::span<const std::byte> bytes, const std::string& path, bool verify) {
  return Reader(bytes, path, verify).read();
}

void check_model(const SessionFile& session, const Digest& model) {
  if (session.model == model) return;
  fail("session {} is of another model ({}); give that one with -m, or another file with --session",
       printable(session.path, 400), printable(session.model_name));
}

SessionState state_after(std::span<const TokenId> prompt, const GenerateOptions& options, const Generation& made,
                         size_t planned) {
  SessionState state{
      .cut_text = made.cut_text, .seed = options.sampling.seed, .resume = made.resume, .context = planned};
  state.tokens.assign(prompt.begin(), prompt.end());
  state.tokens.insert(state.tokens.end(), made.token_ids.begin(), made.token_ids.end());
  state.tokens.resize(made.kept_tokens);
  return state;
}

std::vector<TokenId> go_on(const SessionState& state, const Tokenizer& tokenizer, bool has_seed,
                           GenerateOptions& options) {
  options.resume = state.resume;
  if (!has_seed) options.sampling.seed = state.seed;
  if (options.sampling.seed != state.seed) options.resume.draws = 0;
  std::vector<TokenId> tokens = state.tokens;
  const std::vector<TokenId> cut =
      tokenizer.encode(state.cut_text, {.add_begin = false, .parse_special = false, .goes_on = true});
  tokens.insert(tokens.end(), cut.begin(), cut.end());
  return tokens;
}

size_t planned_tokens(const SessionFile& session, std::optional<size_t> border, size_t wanted, bool goes_on) {
  return border && goes_on && session.state.context > *border ? std::max(wanted, *border + 1) : wanted;
}

bool is_rotated_alike(const SessionFile& session, const Transformer& model, RotationId rotation) {
  return session.rope == identify_rope(model, rotation);
}

void check_session(const SessionFile& session, const MemoryPlan& plan, const Digest& model) {
  const std::string path = printable(session.path, 400);
  const SavedContext& context = session.context;
  check_model(session, model);
  const CacheShape& shape = plan.cache.shape;
  if (context.layers != shape.layers || context.kv_heads != shape.kv_heads || context.head_dim != shape.head_dim) {
    fail_as(ErrorKind::damaged, "session {} is damaged: its shape is not the model's; delete it and run its text again",
            path);
  }
  for (const TokenId id : session.state.tokens) {
    if (id < 0 || static_cast<size_t>(id) >= plan.config.vocabulary) {
      fail_as(ErrorKind::damaged,
              "session {} is damaged: token {} is outside the model's vocabulary; delete it and run its text again",
              path, id);
    }
  }
  if (static_cast<size_t>(context.length) > plan.cache.context) {
    fail_as(ErrorKind::too_long, "session {} holds {} tokens and the context {}; ask for more with -c {}", path,
            context.length, plan.cache.context, session.state.tokens.size() + 1);
  }
}

void restore_session(const SessionFile& session, Cache& cache, const MemoryPlan& plan, SequenceId sequence,
                     const Digest& model) {
  check_session(session, plan, model);
  const std::string path = printable(session.path, 400);
  const SavedContext& context = session.context;
  const size_t stride = context.layer_bytes() + kChecksumBytes;
  const std::optional<Restored> restored =
      restore_context(cache, sequence, context, [&](size_t layer) { return session.layers.data() + layer * stride; });
  if (!restored) {
    fail_as(ErrorKind::busy, "the cache has no room for the {} tokens of session {} now", context.length, path);
  }
  if (restored->converted > 0 || !computed_alike(session, plan.cache)) {
    log_warning(
        "session {} was saved from another cache ({}) and is converted to this one ({}): answers may differ "
        "slightly from those of a run that never stopped",
        path, describe(session), describe(plan.cache));
  }
  if (restored->clamped > 0) {
    log_warning("session {}: {} values of K and V are beyond what their format holds, and are clamped", path,
                restored->clamped);
  }
}

HeldContext held_context(const Cache& cache, const CachePlan& plan, SequenceId sequence, const Transformer& model,
                         RotationId rotation) {
  return {.context = describe_context(cache, sequence),
          .rope = identify_rope(model, rotation),
          .layout = plan.layout,
          .options = row_options(plan, /*numbers_only=*/true)};
}

void save_session(const std::string& path, const HeldContext& held, const LayerRows& rows, const SessionState& state,
                  const Digest& model, const std::string& model_name) {
  Writer writer(path);
  const Header header = header_of(held, state, model, model_name);
  writer.begin();
  writer.write(std::as_bytes(std::span(&header, 1)));
  writer.end();
  writer.begin();
  constexpr std::array<std::byte, 16> zeros{};
  size_t written = 0;
  for (const std::span<const std::byte> bytes :
       {std::as_bytes(std::span(state.tokens)), std::as_bytes(std::span(state.cut_text)),
        std::as_bytes(std::span(held.options))}) {
    writer.write(bytes);
    written += bytes.size();
  }
  writer.write(std::span(zeros).first(saved_aligned(written) - written));
  writer.end();
  for (size_t layer = 0; layer < held.context.layers; ++layer) {
    writer.begin();
    rows(layer, [&](std::span<const std::byte> bytes) { writer.write(bytes); });
    writer.end();
  }
  writer.publish();
}

void save_session(const std::string& path, Runtime& runtime, SequenceId sequence, const SessionState& state,
                  RotationId rotation, const Digest& model, const std::string& model_name) {
  Cache& cache = runtime.cache();
  if (cache.length(sequence) > state.tokens.size()) (void)cache.truncate(sequence, state.tokens.size());
  const HeldContext held = held_context(cache, runtime.plan().cache, sequence, runtime.model(), rotation);
  const auto rows = [&](size_t layer, const ByteSink& sink) { save_layer(cache, sequence, held.context, layer, sink); };
  save_session(path, held, rows, state, model, model_name);
}

}  // namespace contexture
