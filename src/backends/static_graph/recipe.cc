#include "backends/static_graph/recipe.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace contexture {
namespace {

constexpr std::string_view linears[] = {"attn_q",   "attn_k", "attn_v",   "attn_output",
                                        "ffn_gate", "ffn_up", "ffn_down", "output"};

/// Takes a whole number off the front of a text.
std::optional<size_t> take_number(std::string_view& text) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return {};
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

/// "ffn_down[0-3]=8"
std::optional<Recipe::Keep> parse_keep(std::string_view text) {
  Recipe::Keep keep;
  keep.linear = text.substr(0, text.find_first_of("[="));
  text.remove_prefix(keep.linear.size());
  if (std::find(std::begin(linears), std::end(linears), keep.linear) == std::end(linears)) return {};
  if (take(text, '[')) {
    const std::optional<size_t> first = take_number(text);
    if (!first) return {};
    keep.first_layer = keep.last_layer = *first;
    if (take(text, '-')) {
      const std::optional<size_t> last = take_number(text);
      if (!last || *last < *first) return {};
      keep.last_layer = *last;
    }
    if (!take(text, ']')) return {};
  }
  if (!take(text, '=')) return {};
  const std::optional<size_t> bits = take_number(text);
  if (!bits || (*bits != 4 && *bits != 8) || !text.empty()) return {};
  keep.bits = *bits;
  return keep;
}

}  // namespace

ConstantKind Recipe::kind_of(std::string_view linear, size_t layer) const {
  if (!fixed_point) return ConstantKind::f32_panels;
  size_t bits = weight_bits;
  for (const Keep& k : keep) {
    if (k.linear == linear && (linear == "output" || (layer >= k.first_layer && layer <= k.last_layer))) bits = k.bits;
  }
  return bits == 8 ? ConstantKind::i8 : block > 0 ? ConstantKind::i4_blocks : ConstantKind::i4;
}

std::vector<std::string> recipe_names() {
  return {"float", "16a4w", "16a4w-block", "16a8w"};
}

Recipe parse_recipe(std::string_view name, std::string_view keep, size_t block, size_t kv_bits) {
  Recipe recipe;
  recipe.name = name;
  const std::vector<std::string> known = recipe_names();
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    fail("no recipe is called {}; there are: {}", printable(name), fmt::join(known, ", "));
  }
  recipe.fixed_point = name != "float";
  if (name == "16a8w") recipe.weight_bits = 8;
  if (name == "16a4w-block") recipe.block = block;
  if (recipe.block != 0 && block != 16 && block != 32 && block != 64)
    fail("blocks of {}; they are of 16, 32 or 64", block);
  if (kv_bits != 8 && kv_bits != 16) fail("K and V of {} bits; they have 8 or 16", kv_bits);
  if (recipe.fixed_point) recipe.kv_bits = kv_bits;
  if (recipe.block > 0) recipe.name += fmt::format(" {}", block);
  if (!keep.empty()) recipe.name += fmt::format(", {}", keep);
  while (!keep.empty()) {
    const std::string_view part = keep.substr(0, keep.find(','));
    const std::optional<Recipe::Keep> parsed = parse_keep(part);
    if (!parsed) {
      fail("'{}' keeps nothing; write NAME=BITS or NAME[FIRST-LAST]=BITS, with 4 or 8 bits and a name of: {}",
           printable(part), fmt::join(linears, ", "));
    }
    if (!recipe.fixed_point) fail("the recipe float has no bits to keep");
    recipe.keep.push_back(*parsed);
    keep.remove_prefix(std::min(keep.size(), part.size() + 1));
  }
  return recipe;
}

}  // namespace contexture
