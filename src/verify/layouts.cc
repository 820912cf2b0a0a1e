#include "verify/layouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "base/error.h"
#include "cache/layout.h"
#include "model/transformer.h"
#include "tensor/kv_row.h"
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

/// What is tried of an option.
std::vector<int64_t> values_of(const LayoutOption& option, const LayoutChecks& checks) {
  if (const auto given = checks.options.find(std::string(option.name)); given != checks.options.end()) {
    return given->second;
  }
  if (option.kind == LayoutOption::Kind::number) return {option.tried.begin(), option.tried.end()};
  std::vector<int64_t> formats;
  for (const Format format : kv_formats()) formats.push_back(static_cast<int64_t>(format));
  return formats;
}

std::vector<Case> cases_of(std::string_view layout_name, const LayoutChecks& checks) {
  const CacheLayout& layout = layout_named(layout_name);
  std::vector<size_t> sizes = {checks.k_formats.size(),
                               checks.v_formats.size(),
                               std::size(kStarts) - (layout.shares_prefixes ? 0 : 1),  // the last one
                               std::size(kChunks),
                               checks.threads.size(),
                               2};
  const size_t first_option = sizes.size();
  std::vector<std::pair<std::string_view, std::vector<int64_t>>> options;
  for (const LayoutOption& option : layout.options) {
    std::vector<int64_t> values = values_of(option, checks);
    if (option.decides_rows || values.empty()) continue;
    sizes.push_back(values.size());
    options.emplace_back(option.name, std::move(values));
  }
  std::vector<Case> cases;
  for (const Choice& c : checks.all ? everything(sizes) : pairwise(sizes)) {
    Case one{c[0],
             c[1],
             {.chunk = kChunks[c[3]], .threads = checks.threads[c[4]], .beside = c[5] == 1, .start = kStarts[c[2]]}};
    for (size_t i = 0; i < options.size(); ++i) {
      one.way.options.set(options[i].first, options[i].second[c[first_option + i]]);
    }
    cases.push_back(std::move(one));
  }
  return cases;
}

/// One layout, pair of formats and rotation; `layout`, `k` and `v`: places in the lists of what was asked for.
struct Line {
  size_t layout, k, v;
  CachePlan cache;
};

size_t place_of(Format format) {
  return static_cast<size_t>(std::ranges::find(kv_formats(), format) - kv_formats().begin());
}

/// The options that decide which rows are read follow from a line's formats, by two Latin squares in turn: over all
/// pairs each format of K and V meets each value, a cold format for one, and the values of two options meet in all
/// combinations where the number of formats is odd, and in all but one in so many where it is even. Numbers that nobody
/// gave are made smaller where the prompt is too short to show them.
void choose_rows(CachePlan& cache, const LayoutChecks& checks) {
  const CacheLayout& layout = layout_of(cache);
  const size_t k = place_of(cache.shape.k_format), v = place_of(cache.shape.v_format), formats = kv_formats().size();
  const size_t squares[] = {k + v, k + 2 * v + (formats % 2 == 0 && v >= formats / 2)};
  size_t turn = 0;
  for (const LayoutOption& option : layout.options) {
    if (!option.decides_rows) continue;
    const std::vector<int64_t> values = values_of(option, checks);
    cache.options.set(option.name, values.at(squares[turn++ % 2] % values.size()));
  }
  if (!layout.shortest_prompt) return;
  for (const LayoutOption& option : layout.options) {
    const size_t least = layout.shortest_prompt(cache);
    if (least <= checks.prompt.size()) return;
    if (option.kind != LayoutOption::Kind::number || checks.options.contains(std::string(option.name))) continue;
    const int64_t less = cache.options.number(option) - static_cast<int64_t>(least - checks.prompt.size());
    cache.options.set(option.name, std::max(option.low, less));
  }
}

/// The shortest prompt that shows all that a layout does, with options as small as they may be where nobody gave them.
size_t shortest_prompt(const CacheLayout& layout, const LayoutChecks& checks) {
  if (!layout.shortest_prompt) return 0;
  CachePlan cache{.layout = std::string(layout.name)};
  for (const LayoutOption& option : layout.options) {
    if (const auto given = checks.options.find(std::string(option.name)); given != checks.options.end()) {
      cache.options.set(option.name, *std::ranges::max_element(given->second));
    } else if (option.kind == LayoutOption::Kind::number) {
      cache.options.set(option.name, option.low);
    }
  }
  return layout.shortest_prompt(cache);
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
          CachePlan cache{.layout = std::string(checks.layouts[layout]), .shape = shape, .rotate = rotate};
          choose_rows(cache, checks);
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

bool has_own_rows(const Line& line) {
  return layout_of(line.cache).has_own_rows;
}

/// Whether two lines have one reference: they read the bytes that a contiguous cache does.
bool share_reference(const Line& a, const Line& b) {
  return !has_own_rows(a) && !has_own_rows(b) && a.k == b.k && a.v == b.v &&
         rotation_of(a.cache) == rotation_of(b.cache);
}

class Checker {
 public:
  Checker(const ModelFile& file, const LayoutChecks& checks, const LayoutProgress& progress)
      : file_(file),
        checks_(checks),
        progress_(progress),
        prompt_{checks.prompt, std::min<size_t>(96, checks.prompt.size() / 4)},
        model_(file),
        pool_(std::max(physical_cores(), *std::max_element(checks.threads.begin(), checks.threads.end()))),
        lines_(lines_of(model_.config().head_dim, checks)) {
    for (const std::string_view layout : checks.layouts) cases_.push_back(cases_of(layout, checks));
    const Line* plain = nullptr;
    for (const Line& line : lines_) {
      const std::vector<Case>& cases = cases_[line.layout];
      total_ += static_cast<size_t>(
          std::count_if(cases.begin(), cases.end(), [&](const Case& c) { return c.k == line.k && c.v == line.v; }));
      total_ += !plain || !share_reference(*plain, line);
      if (!has_own_rows(line)) plain = &line;
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
      std::optional<Reference>& reference = has_own_rows(line) ? own : plain;
      const bool shares = plain_line && share_reference(*plain_line, line);
      if (!shares) reference = make_reference(line);
      if (!has_own_rows(line)) plain_line = &line;
      LayoutResult result = compare(line, *reference);
      result.shares_reference = shares;
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

  Reference make_reference(const Line& line) {
    CachePlan cache = line.cache;
    if (!has_own_rows(line)) cache.layout = "contiguous", cache.options = {};
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
      if (std::bit_cast<uint32_t>(made[i]) == std::bit_cast<uint32_t>(reference.logits[i])) continue;
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
  for (const std::string_view name : checks.layouts) {
    const size_t least = shortest_prompt(layout_named(name), checks);
    if (checks.prompt.size() >= least) continue;
    fail(
        "a prompt of {} tokens does not show all that a {} cache does; give one of at least {}, or leave {} out "
        "(--cache)",
        checks.prompt.size(), name, least, name);
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
