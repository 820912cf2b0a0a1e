#include "verify/layouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "model/model.h"
#include "verify/distributions.h"
#include "verify/pairwise.h"

namespace contexture {
namespace {

constexpr size_t kChunks[] = {1, 7, 32, 512};
constexpr size_t kPages[] = {8, 16, 32, 64, 128, 256};
constexpr int kThreads[] = {1, 2, 3};
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
                          std::size(kThreads),
                          2,
                          is_paged ? std::size(kPages) : 1};
  std::vector<Case> cases;
  for (const Choice& c : checks.all ? everything(sizes) : pairwise(sizes)) {
    cases.push_back({c[0],
                     c[1],
                     {.chunk = kChunks[c[3]],
                      .page_tokens = kPages[c[6]],
                      .threads = kThreads[c[4]],
                      .beside = c[5] == 1,
                      .start = kStarts[c[2]]}});
  }
  return cases;
}

/// The mixed cache's other choices follow from its formats: over all pairs any two of K, V, cold K and cold V meet in
/// all combinations (a Latin square of order 5), with boundaries of several kinds.
void choose_cold(CachePlan& cache, size_t prompt) {
  constexpr Format formats[] = {Format::f32, Format::f16, Format::bf16, Format::q8_0, Format::q4_0};
  const auto place = [&](Format format) {
    return static_cast<size_t>(std::find(std::begin(formats), std::end(formats), format) - std::begin(formats));
  };
  const size_t k = place(cache.shape.k_format), v = place(cache.shape.v_format);
  cache.cold_k_format = formats[(k + v) % 5];
  cache.cold_v_format = formats[(k + 2 * v) % 5];
  constexpr size_t hot[] = {100, 40, 256}, sinks[] = {4, 0, 21};
  cache.hot_tokens = std::min(hot[(k + v) % 3], prompt - kShortestMixedPrompt + 1);
  cache.sink_tokens = sinks[(k + 2 * v) % 3];
}

class Checker {
 public:
  Checker(const ModelFile& file, const LayoutChecks& checks, const LayoutProgress& progress)
      : file_(file),
        checks_(checks),
        progress_(progress),
        prompt_{checks.prompt, std::min<size_t>(96, checks.prompt.size() / 4)},
        model_(file, prompt_.context()),
        pool_(physical_cores()) {
    for (const std::string_view layout : checks.layouts) {
      cases_.push_back(cases_of(layout, checks));
      total_ += cases_.back().size();
    }
    const auto is_mixed = [](std::string_view layout) { return layout == "mixed"; };
    const bool mixed = std::any_of(checks.layouts.begin(), checks.layouts.end(), is_mixed);
    const bool plain = !std::all_of(checks.layouts.begin(), checks.layouts.end(), is_mixed);
    total_ += 1 + checks.k_formats.size() * checks.v_formats.size() * (mixed + plain);
    const ModelConfig& c = model_.config();
    const size_t n = checks.prompt.size(), work = n * n / 2 * c.layers * c.heads * c.head_dim;
    every_ = checks.all ? 1 : 1 + work / kOracleWork;
  }

  bool run() {
    bool all_ok = true;
    const CachePlan exact{.layout = "contiguous", .shape = {.k_format = Format::f32, .v_format = Format::f32}};
    exact_ = logits(exact, {}, nullptr);
    for (size_t k = 0; k < checks_.k_formats.size(); ++k) {
      for (size_t v = 0; v < checks_.v_formats.size(); ++v) {
        std::optional<Reference> plain;  // contiguous and paged read the same bytes
        for (size_t i = 0; i < checks_.layouts.size(); ++i) {
          CachePlan cache{.layout = checks_.layouts[i],
                          .shape = {.k_format = checks_.k_formats[k], .v_format = checks_.v_formats[v]}};
          const bool is_mixed = cache.layout == "mixed";
          if (is_mixed) choose_cold(cache, checks_.prompt.size());
          std::optional<Reference> own;
          std::optional<Reference>& reference = is_mixed ? own : plain;
          if (!reference) reference = make_reference(cache);
          const LayoutResult result = compare(cache, *reference, k, v, cases_[i]);
          if (is_cancelled()) return false;
          progress_.on_result(result);
          all_ok &= result.ok();
          if (!all_ok && checks_.fault) return false;
        }
      }
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

  LayoutResult compare(const CachePlan& cache, const Reference& reference, size_t k, size_t v,
                       const std::vector<Case>& cases) {
    LayoutResult result{.cache = cache, .oracle = reference.oracle};
    if (!reference.failure.empty()) result.failures.push_back(reference.failure);
    if (!reference.logits.empty()) {
      const size_t vocabulary = model_.config().vocabulary;
      result.kl = distance_between(std::span(exact_).last(vocabulary), std::span(reference.logits).last(vocabulary)).kl;
    }
    for (const Case& one : cases) {
      if (one.k != k || one.v != v || is_cancelled()) continue;
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
  const Model model_;
  ThreadPool pool_;                       // the oracle's
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
  if (is_mixed && checks.prompt.size() < kShortestMixedPrompt) {
    fail(
        "of a prompt of {} tokens none would be cold in a mixed cache; give one of at least {}, or leave mixed out "
        "(--cache contiguous,paged)",
        checks.prompt.size(), kShortestMixedPrompt);
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
