#include <algorithm>
#include <memory>

#include "jinja/builtins.h"
#include "jinja/paths.h"
#include "jinja/text_parts.h"

/// Filters of lists and of what else can be looped over.
namespace contexture::jinja {
namespace {

/// Texts without their case, where case does not count.
Value key_of(In in, const Value& value, bool case_sensitive) {
  if (!value.is(Kind::string) || case_sensitive) return value;
  return changed_text(in.heap(), value.string(), TextChange::lower);
}

/// One attribute's value as a key; the item itself without an attribute.
Value attribute_key(In in, const Value& item, const Value& attribute, bool case_sensitive, const Value& fallback) {
  return key_of(in, at_path(in, item, attribute, fallback), case_sensitive);
}

using Keyed = std::vector<std::pair<Value, Value>>;

void sort_by_key(In in, Keyed& pairs, bool falling) {
  in.heap().spend(pairs.size() * 32);
  std::stable_sort(pairs.begin(), pairs.end(), [&](const auto& x, const auto& y) {
    return falling ? less(in.heap(), y.first, x.first) : less(in.heap(), x.first, y.first);
  });
}

Value second_of_each(In in, const Keyed& pairs) {
  std::vector<Value> items;
  for (const auto& pair : pairs) items.push_back(pair.second);
  return in.heap().list(std::move(items));
}

/// Keys are lists of what the attributes "a,b" lead to, so that two equal ones need no order.
Value sort_filter(In in, const Value& input, Args a) {
  const bool case_sensitive = flag_argument(a, 1, "case_sensitive", false);
  const Value attribute = a.get(2, "attribute", Value::none());
  std::vector<Value> paths = {attribute};
  if (attribute.is(Kind::string)) {
    Arguments comma;
    comma.positional = {in.heap().string(",")};
    paths = string_methods().at("split").run(in, attribute, comma).items();
  }
  Keyed pairs;
  for (const Value& item : items_of(in.heap(), input)) {
    std::vector<Value> keys;
    keys.reserve(paths.size());
    for (const Value& path : paths) keys.push_back(attribute_key(in, item, path, case_sensitive, Value::none()));
    pairs.emplace_back(in.heap().list(std::move(keys)), item);
  }
  sort_by_key(in, pairs, flag_argument(a, 0, "reverse", false));
  return second_of_each(in, pairs);
}

Value dictsort_filter(In in, const Value& input, Args a) {
  if (!input.is(Kind::dict)) raise("dictsort needs a dictionary and not {}", kind_name(input));
  const bool case_sensitive = flag_argument(a, 0, "case_sensitive", false);
  const Value by = a.get(1, "by", in.heap().string("key"));
  const bool by_value = by.is(Kind::string) && by.text() == "value";
  if (!by_value && !(by.is(Kind::string) && by.text() == "key")) raise("dictsort sorts by 'key' or 'value'");
  Keyed pairs;
  for (const auto& [key, value] : input.dict().entries) {
    pairs.emplace_back(key_of(in, by_value ? value : key, case_sensitive), in.heap().tuple({key, value}));
  }
  sort_by_key(in, pairs, flag_argument(a, 2, "reverse", false));
  return second_of_each(in, pairs);
}

Value groupby_filter(In in, const Value& input, Args a) {
  const Value &attribute = a.need(0, "attribute"), fallback = a.get(1, "default", Value::none());
  const bool case_sensitive = flag_argument(a, 2, "case_sensitive", false);
  Keyed pairs;
  for (const Value& item : items_of(in.heap(), input)) {
    pairs.emplace_back(attribute_key(in, item, attribute, case_sensitive, fallback), item);
  }
  sort_by_key(in, pairs, false);
  std::vector<Value> groups, group;
  for (size_t i = 0; i < pairs.size(); ++i) {
    group.push_back(pairs[i].second);
    if (i + 1 < pairs.size() && equal(in.heap(), pairs[i].first, pairs[i + 1].first)) continue;
    const Value grouper = case_sensitive ? pairs[i].first : at_path(in, group[0], attribute, fallback);
    groups.push_back(in.heap().list({grouper, in.heap().list(std::move(group))}, Kind::tuple, "group"));
    group = {};
  }
  return in.heap().list(std::move(groups));
}

template <bool Largest>
Value extreme(In in, const Value& input, Args a) {
  const bool case_sensitive = flag_argument(a, 0, "case_sensitive", false);
  const Value attribute = a.get(1, "attribute", Value::none());
  Iterator items(in.heap(), input);
  Value best, best_key, item;
  for (bool is_first = true; items.next(item); is_first = false) {
    const Value key = attribute_key(in, item, attribute, case_sensitive, Value::none());
    if (!is_first && !(Largest ? less(in.heap(), best_key, key) : less(in.heap(), key, best_key))) continue;
    best = item;
    best_key = key;
  }
  return best;
}

Value join_filter(In in, const Value& input, Args a) {
  const Value between = string_of(in.heap(), a.get(0, "d", in.heap().string("")));
  const Value attribute = a.get(1, "attribute", Value::none());
  Writer out(in.heap());
  Iterator items(in.heap(), input);
  bool first = true;
  for (Value item; items.next(item);) {
    if (!first) out.add(between.string());
    first = false;
    out.add(at_path(in, item, attribute));
  }
  return out.take();
}

Value sum_filter(In in, const Value& input, Args a) {
  const Value attribute = a.get(0, "attribute", Value::none());
  Value total = a.get(1, "start", Value::of(int64_t{0}));
  if (total.is(Kind::string)) raise("sum adds no texts; use join");
  Iterator items(in.heap(), input);
  for (Value item; items.next(item);) total = arithmetic(in, "+", total, at_path(in, item, attribute));
  return total;
}

Value generator_over(Heap& heap, std::vector<Value> items) {
  return heap.generator(
      [iterator = Iterator(heap, heap.list(std::move(items)))](Value& item) mutable { return iterator.next(item); });
}

Value reverse_filter(In in, const Value& input, Args) {
  Heap& heap = in.heap();
  std::vector<Value> items = items_of(heap, input);
  std::reverse(items.begin(), items.end());
  if (input.is(Kind::string)) {
    Writer out(heap);
    for (const Value& item : items) out.add(item.string());
    return heap.string(out.text(), input.is_markup());
  }
  if (input.is(Kind::generator)) return heap.list(std::move(items));
  return generator_over(heap, std::move(items));
}

/// The arguments after the first `count`.
Arguments rest(In in, Args a, size_t count) {
  in.heap().spend(32 * (a.positional.size() + a.named.size()));
  Arguments others;
  others.positional.assign(a.positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, a.positional.size())),
                           a.positional.end());
  others.named = a.named;
  others.names = a.names;
  return others;
}

/// A generator over what `make` takes from the items: it says whether an item goes on, and may change it. Nothing is
/// done before an item is asked for, and nothing at all where the input is false.
template <typename Make>
Value generated(In in, const Value& input, Make make) {
  struct State {
    bool has_begun = false;
    Iterator items;
  };
  return in.heap().generator([&in, input, make, state = std::make_shared<State>()](Value& item) {
    const Interpreter::Level level(in);
    if (!state->has_begun) {
      state->has_begun = true;
      if (!truthy(input)) return false;
      state->items = Iterator(in.heap(), input);
    }
    while (state->items.next(item)) {
      if (make(item)) return true;
    }
    return false;
  });
}

Value map_filter(In in, const Value& input, Args a) {
  const bool by_attribute = a.positional.empty() && a.find(0, "attribute");
  if (by_attribute) {
    for (const auto& [name, value] : a.named) {
      if (name != "attribute" && name != "default") raise("map takes no argument '{}'", name);
    }
    const Value path = a.need(0, "attribute"), fallback = a.get(1, "default", Value::none());
    return generated(in, input, [&in, path, fallback](Value& item) {
      item = at_path(in, item, path, fallback);
      return true;
    });
  }
  return generated(in, input, [&in, given = a](Value& item) {
    if (given.positional.empty()) raise("map needs a filter or an attribute");
    item = in.filter(string_of(in.heap(), given.positional[0]).text(), item, rest(in, given, 1));
    return true;
  });
}

/// select, reject, selectattr, rejectattr.
template <bool Keep, bool ByAttribute>
Value selected(In in, const Value& input, Args a) {
  return generated(in, input, [&in, given = a](Value& item) {
    constexpr size_t place = ByAttribute ? 1 : 0;
    if (given.positional.size() < place) raise("the name of an attribute is missing");
    const Value value = ByAttribute ? at_path(in, item, given.positional[0]) : item;
    if (given.positional.size() == place) return truthy(value) == Keep;
    return in.test(string_of(in.heap(), given.positional[place]).text(), value, rest(in, given, place + 1)) == Keep;
  });
}

Value unique_filter(In in, const Value& input, Args a) {
  const bool case_sensitive = flag_argument(a, 0, "case_sensitive", false);
  const Value attribute = a.get(1, "attribute", Value::none());
  auto seen = std::make_shared<std::vector<Value>>();
  return generated(in, input, [&in, case_sensitive, attribute, seen](Value& item) {
    const Value key = attribute_key(in, item, attribute, case_sensitive, Value::none());
    if (key.is(Kind::list) || key.is(Kind::dict)) raise("{} cannot be a key", kind_name(key));
    const auto same = [&](const Value& other) { return equal(in.heap(), key, other); };
    if (std::any_of(seen->begin(), seen->end(), same)) return false;
    seen->push_back(key);
    return true;
  });
}

Value batch_filter(In in, const Value& input, Args a) {
  const int64_t size = whole_argument(a, 0, "linecount", 0);
  const Value filling = a.get(1, "fill_with", Value::none());
  std::vector<Value> batches, batch;
  const auto close = [&] {
    if (!batch.empty()) batches.push_back(in.heap().list(std::move(batch)));
    batch = {};
  };
  for (const Value& item : items_of(in.heap(), input)) {
    if (static_cast<int64_t>(batch.size()) == size) close();
    batch.push_back(item);
  }
  if (!batch.empty() && !filling.is(Kind::none) && size > static_cast<int64_t>(batch.size())) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(static_cast<size_t>(size), sizeof(Value), &bytes)) raise("batches of {} items", size);
    in.heap().account().check_memory(bytes);
    batch.resize(static_cast<size_t>(size), filling);
  }
  close();
  return generator_over(in.heap(), std::move(batches));
}

Value slice_filter(In in, const Value& input, Args a) {
  const int64_t given = whole_argument(a, 0, "slices", 0);
  const Value filling = a.get(1, "fill_with", Value::none());
  if (given == 0) raise("no slices");
  const std::vector<Value> items = items_of(in.heap(), input);
  const size_t count = given > 0 ? static_cast<size_t>(given) : 0;
  std::vector<Value> slices;
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const bool has_more = i < items.size() % count;
    const size_t end = at + items.size() / count + (has_more ? 1 : 0);
    std::vector<Value> slice(items.begin() + static_cast<std::ptrdiff_t>(at),
                             items.begin() + static_cast<std::ptrdiff_t>(end));
    if (!has_more && !filling.is(Kind::none)) slice.push_back(filling);
    slices.push_back(in.heap().list(std::move(slice)));
    at = end;
  }
  return generator_over(in.heap(), std::move(slices));
}

}  // namespace

const Table& list_filters() {
  static const Table table = {
      {"batch", {batch_filter, "linecount fill_with?"}},
      {"dictsort", {dictsort_filter, "case_sensitive? by? reverse?"}},
      {"groupby", {groupby_filter, "attribute default? case_sensitive?"}},
      {"join", {join_filter, "d? attribute?"}},
      {"map", {map_filter, "* **"}},
      {"max", {extreme<true>, "case_sensitive? attribute?"}},
      {"min", {extreme<false>, "case_sensitive? attribute?"}},
      {"reject", {selected<false, false>, "* **"}},
      {"rejectattr", {selected<false, true>, "* **"}},
      {"reverse", {reverse_filter, ""}},
      {"select", {selected<true, false>, "* **"}},
      {"selectattr", {selected<true, true>, "* **"}},
      {"slice", {slice_filter, "slices fill_with?"}},
      {"sort", {sort_filter, "reverse? case_sensitive? attribute?"}},
      {"sum", {sum_filter, "attribute? start?"}},
      {"unique", {unique_filter, "case_sensitive? attribute?"}},
  };
  return table;
}

}  // namespace contexture::jinja
