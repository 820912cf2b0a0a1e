#include "engine/session.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <xxhash.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "cache/layout.h"
#include "files/gguf_writer.h"
#include "support/log_watch.h"
#include "support/random.h"
#include "support/random_model.h"
#include "support/sanitized.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

std::vector<std::byte> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

/// What fail() says, or "".
template <class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// A cache of small numbers, so that few tokens reach every part of it.
RunOptions small_options(std::string_view layout, Format k, Format v, size_t context, Format cold_k = Format::q4_0,
                         Format cold_v = Format::q4_0) {
  RunOptions options;
  options.cache = {.layout = std::string(layout),
                   .shape = {.k_format = k, .v_format = v},
                   .context = context,
                   .options = own_options(layout, {{"page_tokens", 16},
                                                   {"hot_tokens", 20},
                                                   {"sink_tokens", 3},
                                                   {"cold_k_format", cold_k},
                                                   {"cold_v_format", cold_v}}),
                   .resumable = true};
  options.chunk = 48;
  return options;
}

/// A runtime with one sequence.
class Fed {
 public:
  Fed(const ModelFile& file, const RunOptions& options) : runtime(file, options), sequence(runtime.cache()) {}

  /// Feeds tokens, at most `chunk` a step; the logits after the last of each step.
  std::vector<float> feed(std::span<const int32_t> tokens, size_t chunk) {
    std::vector<float> all;
    chunk = std::min(chunk, runtime.workspace().size.tokens);
    for (size_t at = 0; at < tokens.size(); at += chunk) {
      const auto step = tokens.subspan(at, std::min(chunk, tokens.size() - at));
      const size_t first = runtime.cache().length(sequence.id());
      EXPECT_TRUE(runtime.cache().append(sequence.id(), step.size()));
      std::vector<int64_t> positions;
      for (size_t i = 0; i < step.size(); ++i) positions.push_back(static_cast<int64_t>(first + i));
      const std::vector<SequenceId> sequences(step.size(), sequence.id());
      std::vector<uint8_t> wants(step.size(), 0);
      wants.back() = 1;
      const std::span<const float> logits = runtime.model().forward(
          {.tokens = step, .positions = positions, .sequences = sequences, .wants_logits = wants}, runtime.cache(),
          runtime.workspace(), runtime.pool());
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

  Runtime runtime;
  OwnedSequence sequence;
};

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    write_random_model({.vocabulary = 259}, model_.path(), /*with_vocabulary=*/true);
    file_ = open_model(model_.path());
    ThreadPool pool(2);
    identity_ = identify_model(file_, pool);
    std::mt19937 random = fresh_random();
    for (int32_t& t : text_) t = static_cast<int32_t>(random() % 259);
  }

  std::span<const int32_t> text(size_t first, size_t count) const { return std::span(text_).subspan(first, count); }

  void save(Fed& run, const std::vector<int32_t>& tokens) const {
    save_session(session_.path(), run.runtime, run.sequence.id(), {.tokens = tokens, .seed = 7, .resume = {.draws = 1}},
                 0, identity_, "model.gguf");
  }
  void save_text(Fed& run, size_t tokens) const {
    save(run, {text_.begin(), text_.begin() + static_cast<ptrdiff_t>(tokens)});
  }
  void restore(Fed& run) const { restore(run, identity_); }
  void restore(Fed& run, const Digest& identity) const {
    const std::vector<std::byte> bytes = read_bytes(session_.path());
    restore_session(read_session(bytes, session_.path()), run.runtime.cache(), run.runtime.plan(), run.sequence.id(),
                    identity);
  }

  TemporaryFile model_;
  TemporaryFile session_{".session"};
  ModelFile file_;
  Digest identity_;
  std::vector<int32_t> text_ = std::vector<int32_t>(420);
};

struct Kind {
  std::string_view layout;
  Format k, v, cold_k = Format::q4_0, cold_v = Format::q4_0;
  RunOptions options(size_t context) const { return small_options(layout, k, v, context, cold_k, cold_v); }
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const Format format : kv_formats()) {
    all.push_back({"contiguous", format, format});
    all.push_back({"paged", format, format});
    all.push_back({"mixed", Format::f16, Format::f16, format, format});
    all.push_back({"mixed", format, Format::f32, Format::q8_0, format});
  }
  return all;
}

// At the borders of pages (16) and of tiles (128), where tokens cool (128 + 20 - 1), where the ring has come round.
// What comes after is fed in chunks too, so that tokens cool on the way; and in a context longer than the one that was
// saved.
TEST_F(SessionTest, ResumedIsNeverStopped) {
  std::vector<size_t> lengths = {1, 15, 16, 17, 127, 128, 129, 147, 148, 256, 300};
  if (kSanitized) lengths = {1, 17, 148, 300};
  for (const Kind& kind : kinds()) {
    for (const size_t length : lengths) {
      SCOPED_TRACE(fmt::format("{} {} {}", kind.layout, name(kind.k), length));
      Fed never(file_, kind.options(420));
      never.feed(text(0, length), 31);
      Fed stopped(file_, kind.options(length));
      stopped.feed(text(0, length), 48);
      save_text(stopped, length);
      Fed resumed(file_, kind.options(420));
      const LogWatch log;
      restore(resumed);
      EXPECT_EQ(log.text(), "");
      for (const size_t chunk : {1, 24}) {
        const auto more = text(length + chunk, chunk == 1 ? 3 : 96);
        const std::vector<float> want = never.feed(more, chunk), got = resumed.feed(more, chunk);
        ASSERT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST_F(SessionTest, ContiguousAndPagedAreOne) {
  for (const auto& [from, to] : {std::pair{"contiguous", "paged"}, std::pair{"paged", "contiguous"}}) {
    for (const Format format : {Format::f16, Format::q4_0}) {
      Fed one(file_, small_options(from, format, format, 200));
      one.feed(text(0, 130), 48);
      save_text(one, 130);
      Fed two(file_, small_options(to, format, format, 140));
      const LogWatch log;
      restore(two);
      EXPECT_EQ(log.text(), "");
      EXPECT_EQ(one.feed(text(130, 5), 1), two.feed(text(130, 5), 1));
    }
  }
}

// Which rows become what is tested in tests/cache; here, that it is said, and that what follows makes sense.
TEST_F(SessionTest, AnotherCacheIsConvertedAndSaid) {
  const std::vector<Kind> all = {{"contiguous", Format::f32, Format::f32},
                                 {"paged", Format::f16, Format::q8_0},
                                 {"paged", Format::q4_0, Format::q4_0},
                                 {"mixed", Format::f16, Format::f16},
                                 {"mixed", Format::q8_0, Format::q8_0, Format::q8_0, Format::q8_0}};
  for (size_t a = 0; a < all.size(); ++a) {
    Fed from(file_, all[a].options(300));
    from.feed(text(0, 200), 48);
    save_text(from, 200);
    for (size_t b = 0; b < all.size(); ++b) {
      if (a == b) continue;
      SCOPED_TRACE(fmt::format("{} to {}", a, b));
      Fed to(file_, all[b].options(300)), fresh(file_, all[b].options(300));
      const LogWatch log;
      restore(to);
      EXPECT_NE(log.text().find("may differ slightly"), std::string::npos) << log.text();
      EXPECT_EQ(to.runtime.cache().length(to.sequence.id()), 200u);
      fresh.feed(text(0, 200), 48);
      const std::vector<float> got = to.feed(text(200, 4), 1), want = fresh.feed(text(200, 4), 1);
      // Logits of a random model lie around zero: those of unrelated contexts would differ by twice their squares' sum.
      double apart = 0, all_squares = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        apart += std::pow(got[i] - want[i], 2);
        all_squares += std::pow(want[i], 2);
      }
      EXPECT_LT(apart, 0.1 * all_squares);
    }
  }
}

TEST_F(SessionTest, OtherNumbersOfHotTokensAreSaid) {
  Fed from(file_, small_options("mixed", Format::f16, Format::f16, 300));
  from.feed(text(0, 100), 48);
  save_text(from, 100);
  RunOptions options = small_options("mixed", Format::f16, Format::f16, 300);
  options.cache.options.set("hot_tokens", 40);
  Fed to(file_, options);
  const LogWatch log;
  restore(to);
  EXPECT_NE(log.text().find("hot_tokens=20"), std::string::npos) << log.text();
  EXPECT_NE(log.text().find("hot 40"), std::string::npos) << log.text();
}

// LongRoPE: how long a text may grow decides by which frequencies its K is rotated.
TEST_F(SessionTest, TellsByWhichFrequenciesItWasRotated) {
  const TemporaryFile phi;
  write_random_model({.family = "phi3", .rope_scaling = "longrope", .original_context = 64}, phi.path());
  file_ = open_model(phi.path());
  Fed run(file_, small_options("paged", Format::f16, Format::f16, 64));
  run.feed(std::vector<int32_t>{1, 2, 3}, 3);
  save(run, {1, 2, 3});
  const std::vector<std::byte> bytes = read_bytes(session_.path());
  const SessionFile session = read_session(bytes, session_.path());
  const Transformer& model = run.runtime.model();
  EXPECT_TRUE(is_rotated_alike(session, model, model.rotation_of(64)));
  EXPECT_FALSE(is_rotated_alike(session, model, model.rotation_of(65)));
}

TEST_F(SessionTest, KeepsTokensSeedAndWhatHasNotRun) {
  Fed run(file_, small_options("paged", Format::f16, Format::f16, 50));
  run.feed(text(0, 20), 48);
  save_text(run, 21);
  const std::vector<std::byte> bytes = read_bytes(session_.path());
  const SessionFile session = read_session(bytes, "s");
  EXPECT_EQ(session.state.tokens, std::vector<int32_t>(text_.begin(), text_.begin() + 21));
  EXPECT_EQ(session.state.seed, 7u);
  EXPECT_EQ(session.state.resume.draws, 1u);
  EXPECT_EQ(session.context.length, 20);
}

TEST_F(SessionTest, OfNoTokensIsRead) {
  Fed run(file_, small_options("paged", Format::f16, Format::f16, 50));
  save(run, {});
  const std::vector<std::byte> bytes = read_bytes(session_.path());
  const SessionFile session = read_session(bytes, "s");
  EXPECT_TRUE(session.state.tokens.empty());
  EXPECT_EQ(session.context.length, 0);
}

TEST_F(SessionTest, KeepsAllThatARunWhichNeverStoppedWouldKnow) {
  Fed run(file_, small_options("paged", Format::f16, Format::f16, 50));
  run.feed(text(0, 20), 48);
  const SessionState state{.tokens = {text_.begin(), text_.begin() + 17},
                           .cut_text = "a \xc3",
                           .seed = 8,
                           .resume = {.draws = 9, .open_tokens = 2, .shown_bytes = 3},
                           .clamped_values = 10,
                           .context = 50};
  save_session(session_.path(), run.runtime, run.sequence.id(), state, 0, identity_, "model.gguf");
  const std::vector<std::byte> bytes = read_bytes(session_.path());
  const SessionFile session = read_session(bytes, "s");
  EXPECT_EQ(session.context.length, 17) << "what the sequence holds beyond the text is forgotten";
  EXPECT_EQ(session.state.tokens, state.tokens);
  EXPECT_EQ(session.state.cut_text, state.cut_text);
  EXPECT_EQ(session.state.seed, 8u);
  EXPECT_EQ(session.state.resume.draws, 9u);
  EXPECT_EQ(session.state.resume.open_tokens, 2u);
  EXPECT_EQ(session.state.resume.shown_bytes, 3u);
  EXPECT_EQ(session.state.clamped_values, 10u);
  EXPECT_EQ(session.state.context, 50u);
}

TEST(SessionPlan, ATextThatBeganLongGoesOnSo) {
  const auto planned = [](size_t context, size_t wanted, bool goes_on) {
    SessionFile session;
    session.state.context = context;
    return planned_tokens(session, 64, wanted, goes_on);
  };
  EXPECT_EQ(planned(40, 50, true), 50u);
  EXPECT_EQ(planned(64, 70, true), 70u) << "it grows over the border: its rows are run again";
  EXPECT_EQ(planned(99, 20, true), 65u) << "it began with a long context, and goes on so";
  EXPECT_EQ(planned(99, 20, false), 20u) << "another text is what it is in a run of its own";
  EXPECT_EQ(planned_tokens(SessionFile(), std::nullopt, 20, true), 20u);
}

/// A session file as version 2 had it: a mixed cache's two numbers in the header, and no text of options.
std::vector<std::byte> as_version_2(std::vector<std::byte> bytes, const SessionFile& session, uint64_t hot,
                                    uint64_t sinks) {
  constexpr size_t kHeader = 344, kVersionAt = 8, kNumbersAt = 72, kChecksum = 16;
  const size_t text = session.state.tokens.size() * sizeof(int32_t) + session.state.cut_text.size();
  const size_t section = kHeader + kChecksum, old_end = section + saved_aligned(text + session.options.size());
  std::vector<std::byte> tokens(bytes.begin() + section, bytes.begin() + section + static_cast<ptrdiff_t>(text));
  tokens.resize(saved_aligned(text));
  std::vector<std::byte> file(bytes.begin(), bytes.begin() + kHeader);
  file[kVersionAt] = std::byte{2};
  std::memcpy(file.data() + kNumbersAt, &hot, 8);
  std::memcpy(file.data() + kNumbersAt + 8, &sinks, 8);
  const auto end_section = [&](std::span<const std::byte> of, uint64_t number) {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(of.data(), of.size(), number);
    const std::span<const std::byte> low = std::as_bytes(std::span(&hash.low64, 1));
    const std::span<const std::byte> high = std::as_bytes(std::span(&hash.high64, 1));
    file.insert(file.end(), low.begin(), low.end());
    file.insert(file.end(), high.begin(), high.end());
  };
  end_section(std::vector<std::byte>(file), 0);
  file.insert(file.end(), tokens.begin(), tokens.end());
  end_section(tokens, 1);
  file.insert(file.end(), bytes.begin() + static_cast<ptrdiff_t>(old_end + kChecksum), bytes.end());
  return file;
}

TEST_F(SessionTest, OfVersion2IsRead) {
  const RunOptions options = small_options("mixed", Format::f16, Format::f16, 300);
  Fed from(file_, options);
  from.feed(text(0, 200), 48);
  save_text(from, 200);
  const std::vector<std::byte> bytes = read_bytes(session_.path());
  const SessionFile now = read_session(bytes, "s");
  EXPECT_EQ(now.options, "hot_tokens=20 sink_tokens=3");
  const std::vector<std::byte> old_bytes = as_version_2(bytes, now, 20, 3);
  const SessionFile old = read_session(old_bytes, "s");
  EXPECT_EQ(old.options, now.options);
  EXPECT_EQ(old.state.tokens, now.state.tokens);
  Fed to(file_, options);
  const LogWatch log;
  restore_session(old, to.runtime.cache(), to.runtime.plan(), to.sequence.id(), identity_);
  EXPECT_EQ(log.text(), "") << "as it was saved: nothing is converted";
  EXPECT_EQ(to.runtime.cache().length(to.sequence.id()), 200u);
}

/// A session as small as can be.
class DamagedSession : public SessionTest {
 protected:
  DamagedSession() {
    write_random_model({.dim = 16, .layers = 2, .heads = 2, .kv_heads = 1, .head_dim = 8, .vocabulary = 259},
                       model_.path(), /*with_vocabulary=*/true);
    file_ = open_model(model_.path());
    ThreadPool pool(1);
    identity_ = identify_model(file_, pool);
    Fed run(file_, small_options("paged", Format::f16, Format::q4_0, 8));
    run.feed(text(0, 3), 48);
    save_text(run, 4);
    bytes_ = read_bytes(session_.path());
  }
  std::vector<std::byte> bytes_;
};

TEST_F(DamagedSession, EveryBitMatters) {
  EXPECT_NO_THROW(read_session(bytes_, "s"));
  ASSERT_LT(bytes_.size(), 2000u);
  for (size_t at = 0; at < bytes_.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> damaged = bytes_;
      damaged[at] ^= std::byte{1} << bit;
      const std::string says = error_of([&] { read_session(damaged, "s"); });
      EXPECT_NE(says, "") << "byte " << at;
      EXPECT_EQ(says.find('\n'), std::string::npos);
    }
  }
}

TEST_F(DamagedSession, EveryTruncationIsSeen) {
  for (size_t size = 0; size < bytes_.size(); ++size) {
    EXPECT_THROW(read_session(std::span(bytes_).first(size), "s"), Error) << size;
  }
  bytes_.push_back(std::byte{0});
  EXPECT_THROW(read_session(bytes_, "s"), Error);
}

// As a program might write it that means harm: checksums right, numbers wrong. Read, and then restored where it can be
// read.
TEST_F(DamagedSession, WrongNumbersWithRightChecksumsAreHarmless) {
  std::mt19937 random = fresh_random();
  const size_t repeats = kSanitized ? 1000 : 4000;
  size_t refused = 0;
  for (size_t repeat = 0; repeat < repeats; ++repeat) {
    std::vector<std::byte> damaged = bytes_;
    for (size_t n = 0; n < 1 + repeat % 3; ++n) damaged[random() % 400] = static_cast<std::byte>(random());
    Fed run(file_, small_options(cache_layouts()[repeat % 3], Format::f16, Format::f16, 8));
    const LogWatch log;
    refused += !error_of([&] {
                  restore_session(read_session(damaged, "s", /*verify=*/false), run.runtime.cache(), run.runtime.plan(),
                                  run.sequence.id(), identity_);
                  run.feed(text(0, 1), 1);
                }).empty();
  }
  EXPECT_GT(refused, repeats / 4);
  EXPECT_LT(refused, repeats) << "some bytes are values of K and V";
}

TEST_F(DamagedSession, OfAnotherModelIsRefused) {
  const TemporaryFile other;
  ModelFile file = open_model(model_.path());
  const StoredTensor* tensor = file.find("output_norm.weight");
  std::vector<std::byte> changed(tensor->data.begin(), tensor->data.end());
  changed[5] ^= std::byte{1};
  file.tensors[file.tensor_index.at("output_norm.weight")].data = changed;
  ThreadPool pool(3);
  EXPECT_EQ(identify_model(open_model(model_.path()), pool), identity_) << "however many threads";
  const Digest one_bit = identify_model(file, pool);
  EXPECT_NE(one_bit, identity_);
  Fed run(file_, small_options("paged", Format::f16, Format::q4_0, 8));
  EXPECT_NE(error_of([&] { restore(run, one_bit); }).find("another model (model.gguf)"), std::string::npos);
  EXPECT_EQ(run.runtime.cache().length(run.sequence.id()), 0u);
  file = open_model(model_.path());
  file.metadata.set_float("llama.rope.freq_base", 12345);
  EXPECT_NE(identify_model(file, pool), identity_) << "another configuration is another model";
}

TEST_F(DamagedSession, SaysWhichContextIsNeeded) {
  Fed run(file_, small_options("paged", Format::f16, Format::q4_0, 2));
  EXPECT_NE(error_of([&] { restore(run); }).find("-c 5"), std::string::npos);
}

TEST_F(DamagedSession, OfANewerVersionIsNamed) {
  bytes_[8] = std::byte{4};
  EXPECT_NE(error_of([&] { read_session(bytes_, "s"); }).find("version 4"), std::string::npos);
}

// A disk that is full, played by a limit on the size of files.
TEST_F(DamagedSession, AFailedWriteLeavesTheOldFile) {
  Fed run(file_, small_options("paged", Format::f16, Format::q4_0, 300));
  run.feed(text(0, 200), 48);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old = {}, small = {};
  getrlimit(RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 700;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string says = error_of([&] { save_text(run, 200); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, before);
  EXPECT_NE(says.find("cannot write"), std::string::npos) << says;
  EXPECT_EQ(read_bytes(session_.path()), bytes_);
  const std::filesystem::path path = session_.path();
  for (const auto& entry : std::filesystem::directory_iterator(path.parent_path())) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(path.filename().string() + ".partial"));
  }
}

}  // namespace
}  // namespace contexture
