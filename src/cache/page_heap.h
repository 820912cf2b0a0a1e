#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "cache/prefix_tree.h"

namespace contexture {

/// Pages in the order of a time of each, the earliest first: to enter, to leave and to be the first take steps of the
/// order of the logarithm of their number. A binary heap that knows where each page stands. Memory is taken once, for
/// all pages of a pool.
template <class Before = std::less<uint64_t>>
class PageHeap {
 public:
  explicit PageHeap(size_t pages) : places_(pages, kNowhere) { entries_.reserve(pages); }
  /// What the constructor allocates; nothing is, later.
  static size_t bytes_for(size_t pages) { return pages * (sizeof(Entry) + sizeof(uint32_t)); }

  size_t size() const { return entries_.size(); }
  bool contains(PageId page) const { return place(page) != kNowhere; }
  /// Of a heap that is not empty.
  PageId first() const { return entries_.front().page; }
  uint64_t time(PageId page) const { return entries_[place(page)].time; }

  void push(PageId page, uint64_t time) {
    assert(!contains(page));
    entries_.push_back({time, page});
    rise(entries_.size() - 1, {time, page});
  }

  void remove(PageId page) {
    assert(contains(page));
    const size_t hole = place(page);
    places_[static_cast<size_t>(page)] = kNowhere;
    const Entry last = entries_.back();
    entries_.pop_back();
    if (hole == entries_.size()) return;
    if (hole > 0 && before_(last.time, entries_[(hole - 1) / 2].time)) {
      rise(hole, last);
    } else {
      sink(hole, last);
    }
  }

  /// Whether every page stands where it should: for tests.
  bool is_sound() const {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (place(entries_[i].page) != i || (i > 0 && before_(entries_[i].time, entries_[(i - 1) / 2].time)))
        return false;
    }
    return true;
  }

 private:
  static constexpr uint32_t kNowhere = UINT32_MAX;
  struct Entry {
    uint64_t time;
    PageId page;
  };

  uint32_t place(PageId page) const { return places_[static_cast<size_t>(page)]; }
  void put(size_t at, const Entry& entry) {
    entries_[at] = entry;
    places_[static_cast<size_t>(entry.page)] = static_cast<uint32_t>(at);
  }

  /// Puts an entry at a place that is free, or above it.
  void rise(size_t at, const Entry& entry) {
    for (size_t parent; at > 0; at = parent) {
      parent = (at - 1) / 2;
      if (!before_(entry.time, entries_[parent].time)) break;
      put(at, entries_[parent]);
    }
    put(at, entry);
  }

  /// Or below it.
  void sink(size_t at, const Entry& entry) {
    for (size_t child; (child = 2 * at + 1) < entries_.size(); at = child) {
      if (child + 1 < entries_.size() && before_(entries_[child + 1].time, entries_[child].time)) ++child;
      if (!before_(entries_[child].time, entry.time)) break;
      put(at, entries_[child]);
    }
    put(at, entry);
  }

  Before before_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> places_;  // (pages)
};

}  // namespace contexture
