#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/cache.h"

namespace contexture {

/// Formats of K and V.
struct KvFormatPair {
  Format k, v;
};

/// A layout: all that other rooms know of it. Its file declares one; what is left out is as of a layout that holds all
/// tokens alike, each sequence in memory of its own.
struct CacheLayout {
  std::string_view name;
  std::span<const LayoutOption> options = {};

  size_t (*bytes)(const CachePlan&);  ///< exactly what `make` allocates for K and V, and for books
  size_t (*spans)(const CachePlan&);  ///< of a sequence's view, at most
  std::unique_ptr<Cache> (*make)(const CachePlan&);

  /// Of K and V, that a query at a depth of so many tokens reads, in all layers.
  size_t (*bytes_read)(const CachePlan&, size_t tokens) = nullptr;
  /// Formats other than the shape's that a query may find a token in.
  KvFormatPair (*cold_formats)(const CachePlan&) = nullptr;
  /// The shortest prompt that shows all that the layout does; more than any: for verification.
  size_t (*shortest_prompt)(const CachePlan&) = nullptr;
  /// Tokens that are had, shared and given back together.
  size_t (*unit)(const CachePlan&) = nullptr;
  /// The option that says how many tokens all sequences hold together; none: each has room for its whole context.
  std::string_view pool_option = {};
  /// A query reads other bytes than in a contiguous cache: the layout is its own reference.
  bool has_own_rows = false;
  /// Truncated to any length it holds that many tokens; else it may leave fewer.
  bool truncates_anywhere = true;
  /// Sequences that begin alike find what was remembered.
  bool shares_prefixes = false;

  const LayoutOption* option(std::string_view option_name) const;
};

/// All layouts, in the order of the list in layout.cc; then those that were added.
std::span<const CacheLayout* const> all_layouts();
/// For layouts that are not in this folder; it must outlive all. Before anything else runs.
bool add_layout(const CacheLayout& layout);

/// Throws Error where there is none of that name.
const CacheLayout& layout_named(std::string_view name);
inline const CacheLayout& layout_of(const CachePlan& plan) {
  return layout_named(plan.layout);
}

/// Those of some options that a layout has.
LayoutOptions own_options(std::string_view layout, const LayoutOptions& some);
/// Sets an option of the plan's layout. Throws Error where the layout has no such option, or not that value.
void set_option(CachePlan& plan, std::string_view name, const std::string& text);
/// Throws Error where the plan gives options that its layout has not, or not so.
void check_options(const CachePlan& plan);

/// The options that decide which rows a query reads, as "hot_tokens=256 sink_tokens=4": of caches with the same a query
/// reads the same tokens alike. `numbers_only`: without the formats.
std::string row_options(const CachePlan& plan, bool numbers_only = false);
/// All of them.
std::string all_options(const CachePlan& plan);

/// What the plan's layout holds tokens in beside the shape's formats.
std::optional<KvFormatPair> cold_formats(const CachePlan& plan);
/// Tokens that are had together (CacheLayout::unit).
size_t unit_of(const CachePlan& plan);
/// How many tokens all sequences hold together, where the layout has a pool; 0: enough for each to fill its context.
void set_pool(CachePlan& plan, size_t tokens);

}  // namespace contexture
