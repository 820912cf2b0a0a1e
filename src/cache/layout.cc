#include "cache/layout.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace contexture {

// The list of layouts: each a file of this folder that defines the function.
const CacheLayout& contiguous_layout();
const CacheLayout& paged_layout();
const CacheLayout& mixed_layout();

namespace {

std::vector<const CacheLayout*>& list_of_layouts() {
  static std::vector<const CacheLayout*> list = {&contiguous_layout(), &paged_layout(), &mixed_layout()};
  return list;
}

template <class Wanted>
std::string options_text(const CachePlan& plan, const Wanted& wanted) {
  std::string text;
  for (const LayoutOption& option : layout_of(plan).options) {
    if (!wanted(option)) continue;
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", option.name, option.text_of(plan.options.number(option)));
  }
  return text;
}

[[noreturn]] void refuse_option(const CacheLayout& layout, std::string_view name) {
  std::vector<std::string_view> own, others;
  for (const LayoutOption& option : layout.options) own.push_back(option.name);
  for (const CacheLayout* other : all_layouts()) {
    if (other->option(name)) others.push_back(other->name);
  }
  fail("a {} cache has no option {}{}; leave it out{}", layout.name, printable(name),
       own.empty() ? "" : fmt::format(" (it has {})", fmt::join(own, ", ")),
       others.empty() ? "" : fmt::format(", or choose {}", fmt::join(others, " or ")));
}

}  // namespace

const LayoutOption* CacheLayout::option(std::string_view option_name) const {
  const auto found = std::ranges::find(options, option_name, &LayoutOption::name);
  return found == options.end() ? nullptr : &*found;
}

std::span<const CacheLayout* const> all_layouts() {
  return list_of_layouts();
}

bool add_layout(const CacheLayout& layout) {
  list_of_layouts().push_back(&layout);
  return true;
}

const CacheLayout& layout_named(std::string_view name) {
  for (const CacheLayout* layout : all_layouts()) {
    if (layout->name == name) return *layout;
  }
  fail("unknown cache layout '{}'; known: {}", printable(name), fmt::join(cache_layouts(), ", "));
}

LayoutOptions own_options(std::string_view layout, const LayoutOptions& some) {
  LayoutOptions own;
  for (const auto& [name, value] : some.given()) {
    if (layout_named(layout).option(name)) own.set(name, value);
  }
  return own;
}

void set_option(CachePlan& plan, std::string_view name, const std::string& text) {
  const CacheLayout& layout = layout_of(plan);
  const LayoutOption* option = layout.option(name);
  if (!option) refuse_option(layout, name);
  plan.options.set(name, option->parse(text));
}

void check_options(const CachePlan& plan) {
  const CacheLayout& layout = layout_of(plan);
  for (const auto& [name, value] : plan.options.given()) {
    const LayoutOption* option = layout.option(name);
    if (!option) refuse_option(layout, name);
    if (!option->allows(value.number)) {
      fail("{} of a {} cache is {}; give {}", name, layout.name, option->text_of(value.number), option->allowed());
    }
  }
}

std::string row_options(const CachePlan& plan, bool numbers_only) {
  return options_text(plan, [&](const LayoutOption& option) {
    return option.decides_rows && !(numbers_only && option.kind == LayoutOption::Kind::format);
  });
}

std::string all_options(const CachePlan& plan) {
  return options_text(plan, [](const LayoutOption&) { return true; });
}

std::optional<KvFormatPair> cold_formats(const CachePlan& plan) {
  const auto formats = layout_of(plan).cold_formats;
  return formats ? std::optional(formats(plan)) : std::nullopt;
}

size_t unit_of(const CachePlan& plan) {
  const auto unit = layout_of(plan).unit;
  return unit ? unit(plan) : 1;
}

void set_pool(CachePlan& plan, size_t tokens) {
  const std::string_view option = layout_of(plan).pool_option;
  if (!option.empty()) plan.options.set(option, tokens);
}

}  // namespace contexture
