#include "verify/layouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "model/transformer.h"
#include "verify/distributions.h"
#include "verify/pairwise.h"

namespace contexture {
namespace {

constexpr size_t kChunks[] = {1, 7, 32, 512};
constexpr Start kStarts[] = {Start::fresh,     Start::fork,    Start::forks_parent,
                             Start::truncated, Start::resumed, Start::prefix_hit};

/// Multiplications of the oracle in a run, where not everything is asked for.
constexpr size_t kOracleWork = size_t{1} << 25;

/// One run to be made: which formats, and how.
struct Case {
  size_t k, v;
  Way way;
};

std::vector<Case> cases_of(std::string_view layout, const LayoutChecks& checks) {
  const bool is_paged = layout == "paged";
  const size_t sizes[] = {checks.k_formats.size(),
                          checks.v_formats.size(),
                          std::size(kStarts) - (is_paged ? 0 : 1),  // hits are paged ones
                          std::size(kChunks),
                          checks.threads.size(),
                          2,
                          is_paged ? checks.page_tokens.size() : 1};
  std::vector<Case> cases;
  for (const Choice& c : checks.all ? everything(sizes) : pairwise(sizes)) {
    cases.push_back({c[0],
                     c[1],
                     {.chunk = kChunks[c[3]],
                      .page_tokens = checks.page_tokens[c[6]],
                      .threads = checks.threads[c[4]],
                      .beside = c[5] == 1,
                      .start = kStarts[c[2]]}});
  }
  return cases;
}

/// One layout, pair of formats and rotation; `layout`, `k` and `v`: places in the lists of what was asked for.
struct Line {
  size_t layout, k, v;
  CachePlan cache;
};

constexpr Format kFormats[] = {Format::f32, Format::f16, Format::bf16, Format::q8_0, Format::q4_0};

size_t place_of(Format format) {
  return static_cast<size_t>(std::find(std::begin(kFormats), std::end(kFormats), format) - std::begin(kFormats));
}

/// The mixed cache's other choices follow from its formats: over all pairs any two of K, V, cold K and cold V meet in
/// all combinations (a Latin square of order 5), with boundaries of several kinds.
void choose_cold(CachePlan& cache, const LayoutChecks& checks) {
  const size_t k = place_of(cache.shape.k_format), v = place_of(cache.shape.v_format);
  cache.cold_k_format = checks.cold_k_format.value_or(kFormats[(k + v) % 5]);
  cache.cold_v_format = checks.cold_v_format.value_or(kFormats[(k + 2 * v) % 5]);
  constexpr size_t hot[] = {100, 40, 256}, sinks[] = {4, 0, 21};
  cache.sink_tokens = checks.sink_tokens.value_or(sinks[(k + 2 * v) % 3]);
  const size_t most = checks.prompt.size() - shortest_mixed_prompt(1, cache.sink_tokens) + 1;
  cache.hot_tokens = checks.hot_tokens.value_or(std::min(hot[(k + v) % 3], most));
}

/// In which rotations a pair is checked: as it is where nobody says, rotated, and not. If not all are wanted, one that
/// follows from the formats: over all pairs each format of K, and each of V, meets all three.
std::vector<std::optional<bool>> rotations_of(size_t head_dim, Format k, Format v, const LayoutChecks& checks) {
  const std::vector<std::optional<bool>> every = {std::nullopt, true, false};
  if (checks.rotate) return {checks.rotate};
  if (!std::has_single_bit(head_dim)) return {std::nullopt};
  if (checks.all) return every;
  return {every[(place_of(k) + 2 * place_of(v)) % 3]};
}

std::vector<Line> lines_of(size_t head_dim, const LayoutChecks& checks) {
  std::vector<Line> lines;
  for (size_t k = 0; k < checks.k_formats.size(); ++k) {
    for (size_t v = 0; v < checks.v_formats.size(); ++v) {
      const size_t first = lines.size();
      for (const std::optional<bool> rotate :
           rotations_of(head_dim, checks.k_formats[k], checks.v_formats[v], checks)) {
        for (size_t layout = 0; layout < checks.layouts.size(); ++layout) {
          const CacheShape shape{
              .head_dim = head_dim, .k_format = checks.k_formats[k], .v_format = checks.v_formats[v]};
          CachePlan cache{.layout = checks.layouts[layout], .shape = shape, .rotate = rotate};
          if (cache.layout == "mixed") choose_cold(cache, checks);
          const auto is_same = [&](const Line& line) {
            return line.layout == layout && rotation_of(line.cache) == rotation_of(cache);
          };
          if (std::any_of(lines.begin() + static_cast<ptrdiff_t>(first), lines.end(), is_same)) continue;
          lines.push_back({layout, k, v, cache});
        }
      }
    }
  }
  return lines;
}

/// Whether two lines have one reference: contiguous and paged caches read the same bytes.
bool share_reference(const Line& a, const Line& b) {
  return a.cache.layout != "mixed" && b.cache.layout != "mixed" && a.k == b.k && a.v == b.v &&
         rotation_of(a.cache) == rotation_of(b.cache);
}

class Checker {
 public:
  Checker(const ModelFile& file, const LayoutChecks& checks, const LayoutProgress& progress)
      : file_(file),
        checks_(checks),
        progress_(progress),
        prompt_{checks.prompt, std::min<size_t>(96, checks.prompt.size() / 4)},
        model_(file, prompt_.context()),
        pool_(std::max(physical_cores(), *std::max_element(checks.threads.begin(), checks.threads.end()))),
        lines_(lines_of(model_.config().head_dim, checks)) {
    for (const std::string_view layout : checks.layouts) cases_.push_back(cases_of(layout, checks));
    const Line* plain = nullptr;
    for (const Line& line : lines_) {
      const std::vector<Case>& cases = cases_[line.layout];
      total_ += static_cast<size_t>(
          std::count_if(cases.begin(), cases.end(), [&](const Case& c) { return c.k == line.k && c.v == line.v; }));
      total_ += !plain || !share_reference(*plain, line);
      if (line.cache.layout != "mixed") plain = &line;
    }
    ++total_;  // the exact one
    const ModelConfig& c = model_.config();
    const size_t n = checks.prompt.size(), work = n * n / 2 * c.layers * c.heads * c.head_dim;
    every_ = checks.all ? 1 : 1 + work / kOracleWork;
  }

  bool run() {
    bool all_ok = true;
    const CachePlan exact{
        .layout = "contiguous", .shape = {.k_format = Format::f32, .v_format = Format::f32}, .rotate = false};
    exact_ = logits(exact, {}, nullptr);
    const Line* plain_line = nullptr;
    std::optional<Reference> plain, own;
    for (const Line& line : lines_) {
      const bool is_mixed = line.cache.layout == "mixed";
      std::optional<Reference>& reference = is_mixed ? own : plain;
      if (is_mixed || !plain_line || !share_reference(*plain_line, line)) reference = make_reference(line.cache);
      if (!is_mixed) plain_line = &line;
      const LayoutResult result = compare(line, *reference);
      if (is_cancelled()) return false;
      progress_.on_result(result);
      all_ok &= result.ok();
      if (!all_ok && checks_.fault) return false;
    }
    return all_ok;
  }

 private:
  struct Reference {
    std::vector<float> logits;
    OracleResult oracle;
    std::string failure;
  };

  std::vector<float> logits(const CachePlan& cache, const Way& way, RunWatcher* watcher) {
    std::vector<float> made = run_layout(file_, model_, cache, way, prompt_, checks_.fault, watcher, checks_.cancelled);
    if (progress_.on_run) progress_.on_run(++done_, total_);
    return made;
  }

  Reference make_reference(CachePlan cache) {
    if (cache.layout != "mixed") cache.layout = "contiguous";
    OracleCheck oracle(model_.config(), checks_.prompt.size(), every_, pool_);
    Reference reference;
    try {
      reference.logits = logits(cache, {}, &oracle);
    } catch (const Error& e) {
      reference.failure = fmt::format("the reference run: {}", e.what());
    }
    reference.oracle = oracle.result();
    if (!reference.oracle.failure.empty()) reference.failure = reference.oracle.failure;
    return reference;
  }

  LayoutResult compare(const Line& line, const Reference& reference) {
    const CachePlan& cache = line.cache;
    LayoutResult result{.cache = cache, .oracle = reference.oracle};
    if (!reference.failure.empty()) result.failures.push_back(reference.failure);
    if (!reference.logits.empty()) {
      const size_t vocabulary = model_.config().vocabulary;
      result.kl = distance_between(std::span(exact_).last(vocabulary), std::span(reference.logits).last(vocabulary)).kl;
    }
    for (const Case& one : cases_[line.layout]) {
      if (one.k != line.k || one.v != line.v || is_cancelled()) continue;
      if (checks_.fault && !result.failures.empty()) break;
      ++result.ways;
      const std::string problem = difference(cache, reference, one.way);
      result.same += problem.empty();
      if (!problem.empty()) result.failures.push_back(describe(one.way, cache.layout) + ": " + problem);
    }
    return result;
  }

  /// Between the reference's logits and those of a way, as a sentence; none: empty.
  std::string difference(const CachePlan& cache, const Reference& reference, const Way& way) {
    std::vector<float> made;
    try {
      made = logits(cache, way, nullptr);
    } catch (const Error& e) {
      return e.what();
    }
    if (made.empty()) return {};  // cancelled
    if (reference.logits.empty()) return "there is no reference";
    size_t differ = 0;
    double largest = 0;
    for (size_t i = 0; i < made.size(); ++i) {
      if (std::memcmp(&made[i], &reference.logits[i], sizeof(float)) == 0) continue;
      ++differ;
      largest = std::max(largest, std::fabs(static_cast<double>(made[i]) - reference.logits[i]));
    }
    if (differ == 0) return {};
    return fmt::format("{} of {} logits differ, by up to {:.3g}", differ, made.size(), largest);
  }

  bool is_cancelled() const { return checks_.cancelled && *checks_.cancelled; }

  const ModelFile& file_;
  const LayoutChecks& checks_;
  const LayoutProgress& progress_;
  const LayoutPrompt prompt_;
  const Transformer model_;
  ThreadPool pool_;  // the oracle's
  const std::vector<Line> lines_;
  std::vector<std::vector<Case>> cases_;  // of each layout
  size_t every_ = 1, done_ = 0, total_ = 0;
  std::vector<float> exact_;
};

}  // namespace

bool check_layouts(const ModelFile& file, const LayoutChecks& checks, const LayoutProgress& progress) {
  if (checks.prompt.size() < kShortestPrompt) {
    fail("a prompt of {} tokens has no pages to cut; at least {} are needed", checks.prompt.size(), kShortestPrompt);
  }
  const bool is_mixed = std::count(checks.layouts.begin(), checks.layouts.end(), "mixed") > 0;
  const size_t least = shortest_mixed_prompt(checks.hot_tokens.value_or(1), checks.sink_tokens.value_or(0));
  if (is_mixed && checks.prompt.size() < least) {
    fail(
        "of a prompt of {} tokens none would be cold in a mixed cache; give one of at least {}, or leave mixed out "
        "(--cache contiguous,paged)",
        checks.prompt.size(), least);
  }
  return Checker(file, checks, progress).run();
}

std::vector<int32_t> made_prompt(size_t tokens, size_t vocabulary) {
  std::vector<int32_t> ids;
  uint64_t random = 4;
  for (size_t i = 0; i < tokens; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    ids.push_back(static_cast<int32_t>((random >> 33) % vocabulary));
  }
  return ids;
}

}  // namespace contexture
