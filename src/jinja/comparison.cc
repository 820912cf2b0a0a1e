#include <algorithm>

#include "jinja/value.h"

/// Python's ==, < and in.
namespace contexture::jinja {
namespace {

bool same_items(Heap& heap, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(heap, a[i], b[i])) return false;
  }
  return true;
}

bool same_entries(Heap& heap, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = heap.find(b, key);
    if (!other || !equal(heap, value, *other)) return false;
  }
  return true;
}

/// A dictionary's keys and items are sets, its values are not.
bool same_views(Heap& heap, const List& a, const List& b) {
  if (&a == &b) return true;
  if (a.name == "dict_values" || b.name == "dict_values" || a.items.size() != b.items.size()) return false;
  for (const Value& item : a.items) {
    const auto same = [&](const Value& other) { return equal(heap, item, other); };
    if (std::none_of(b.items.begin(), b.items.end(), same)) return false;
  }
  return true;
}

bool same_ranges(const Range& a, const Range& b) {
  const size_t size = a.size();
  if (size != b.size()) return false;
  return size == 0 || (a.start == b.start && (size == 1 || a.step == b.step));
}

}  // namespace

bool equal(Heap& heap, const Value& a, const Value& b) {
  heap.spend(16);
  if (a.is_number() && b.is_number()) {
    return a.is_whole() && b.is_whole() ? a.whole() == b.whole() : a.number() == b.number();
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      heap.spend(a.text().size() == b.text().size() ? a.text().size() : 0);
      return a.text() == b.text();
    case Kind::list:
    case Kind::tuple:
      return same_items(heap, a.items(), b.items());
    case Kind::dict:
      return same_entries(heap, a.dict(), b.dict());
    case Kind::view:
      return same_views(heap, a.list(), b.list());
    case Kind::range:
      return same_ranges(a.range(), b.range());
    case Kind::function:
      return a.object == b.object;
    default:
      return a.integer == b.integer;  // the same object: the union's pointers lie there
  }
}

bool less(Heap& heap, const Value& a, const Value& b) {
  heap.spend(16);
  if (a.is_number() && b.is_number()) {
    return a.is_whole() && b.is_whole() ? a.whole() < b.whole() : a.number() < b.number();
  }
  if (a.is(Kind::string) && b.is(Kind::string)) {
    heap.spend(std::min(a.text().size(), b.text().size()));
    return a.text() < b.text();  // UTF-8 sorts as its characters do
  }
  if (a.is_list() && a.kind == b.kind) {
    const std::vector<Value>&x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(heap, x[i], y[i])) return less(heap, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  for (const Value& value : {a, b}) {
    if (value.is(Kind::undefined)) raise_undefined(value);
  }
  raise("{} and {} have no order", kind_name(a), kind_name(b));
}

bool contains(Heap& heap, const Value& container, const Value& value) {
  switch (container.kind) {
    case Kind::string:
      if (!value.is(Kind::string)) raise("a string can hold a string and not {}", kind_name(value));
      heap.spend_search(container.text().size(), value.text().size());
      return container.text().find(value.text()) != std::string::npos;
    case Kind::dict:
      if (value.is(Kind::list) || value.is(Kind::dict)) raise("{} cannot be a key", kind_name(value));
      return heap.find(container.dict(), value) != nullptr;
    default: {
      Iterator iterator(heap, container);
      for (Value item; iterator.next(item);) {
        if (equal(heap, item, value)) return true;
      }
      return false;
    }
  }
}

}  // namespace contexture::jinja
