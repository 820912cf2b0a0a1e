#include "jinja/value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

/// Lists of lists of the same list print without end, and what nests without end takes the stack when it goes.
constexpr int kDeepestValue = 100;

int depth_of(const Value& value) {
  switch (value.kind) {
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
      return value.list().depth;
    case Kind::dict:
      return value.dict().depth;
    case Kind::function:
      return value.function().depth;
    default:
      return 0;
  }
}

int deeper(int depth) {
  if (depth >= kDeepestValue) raise("values nested deeper than {} levels", kDeepestValue);
  return depth + 1;
}

template <typename T>
Value holding(Kind kind, T object) {
  Value v;
  v.kind = kind;
  v.object = std::make_shared<const T>(std::move(object));
  return v;
}

Value value_at(Heap& heap, const nlohmann::ordered_json& json, const Origin& origin) {
  heap.spend(16);
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value::of(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) raise("a number grows beyond 64 bits");
      [[fallthrough]];
    case nlohmann::ordered_json::value_t::number_integer:
      return Value::of(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value::of(json.get<double>());
    case nlohmann::ordered_json::value_t::string: {
      const std::string& text = json.get_ref<const std::string&>();
      const bool is_own = std::find(origin.own_words.begin(), origin.own_words.end(), text) != origin.own_words.end();
      return heap.string(text, origin.is_content && !is_own);
    }
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(value_at(heap, item, origin));
      return heap.list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(json.size());
      for (const auto& item : json.items()) {
        entries.emplace_back(heap.string(item.key(), origin.is_content), value_at(heap, item.value(), origin));
      }
      return heap.dict(std::move(entries));
    }
    default:
      return Value::none();
  }
}

}  // namespace

// Values.

Value Value::none() {
  Value v;
  v.kind = Kind::none;
  return v;
}
Value Value::of(bool value) {
  Value v;
  v.kind = Kind::boolean;
  v.boolean = value;
  return v;
}
Value Value::of(int64_t value) {
  Value v;
  v.kind = Kind::integer;
  v.integer = value;
  return v;
}
Value Value::of(double value) {
  Value v;
  v.kind = Kind::floating;
  v.floating = value;
  return v;
}
Value Value::literal(std::string text) {
  return holding(Kind::string, String(MarkedText(std::move(text)), /*markup=*/false, {}));
}
Value Value::undefined(const Value& name) {
  Value v;
  v.object = name.object;
  return v;
}

bool Value::is_markup() const {
  return is(Kind::string) && string().is_markup;
}
const std::string& Value::text() const {
  return string().bytes();
}
const std::vector<Value>& Value::items() const {
  return list().items;
}
const Dict& Value::dict() const {
  return is(Kind::name_space) ? *space : *static_cast<const Dict*>(object.get());
}

size_t Range::size() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  const uint64_t span = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                 : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  return (span - 1) / stride + 1;
}

std::string_view kind_name(const Value& value) {
  constexpr std::string_view names[] = {"an undefined value",
                                        "none",
                                        "a boolean",
                                        "an integer",
                                        "a float",
                                        "a string",
                                        "a list",
                                        "a tuple",
                                        "a dictionary's view",
                                        "a dictionary",
                                        "a range",
                                        "a namespace",
                                        "a loop",
                                        "a function",
                                        "a generator",
                                        "a cycler",
                                        "a joiner"};
  return names[static_cast<size_t>(value.kind)];
}

void raise_undefined(const Value& value) {
  if (value.object) raise("'{}' is undefined", value.text());
  raise("a value is undefined");
}

bool truthy(const Value& value) {
  switch (value.kind) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return value.boolean;
    case Kind::integer:
      return value.integer != 0;
    case Kind::floating:
      return value.floating != 0;
    case Kind::string:
      return !value.text().empty();
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
      return !value.items().empty();
    case Kind::dict:
      return !value.dict().entries.empty();
    case Kind::range:
      return value.range().size() > 0;
    default:
      return true;
  }
}

Value value_of(Heap& heap, const nlohmann::ordered_json& json, const Origin& origin) {
  return value_at(heap, json, origin);
}

// The heap.

Heap::~Heap() = default;

Value Heap::string(std::string_view text, bool is_content) {
  Charge charge(account_, sizeof(String) + text.size());
  spend(64 + text.size());
  return holding(Kind::string, String(MarkedText(std::string(text), is_content), /*markup=*/false, std::move(charge)));
}

Value Heap::string(MarkedText text, bool markup) {
  Charge charge(account_, sizeof(String) + text.size() + text.content().size() * sizeof(ByteRange));
  spend(64 + text.size());
  return holding(Kind::string, String(std::move(text), markup, std::move(charge)));
}

Value Heap::part(const String& text, size_t from, size_t to) {
  MarkedText copy;
  copy.add(text, from, to);
  return string(std::move(copy), text.is_markup);
}

Value Heap::list(std::vector<Value> items, Kind kind, std::string_view name) {
  Charge charge(account_, sizeof(List) + items.size() * sizeof(Value));
  spend(64 + items.size() * 16);
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  return holding(kind, List{std::move(items), name, deeper(depth), std::move(charge)});
}

Value Heap::dict(std::vector<std::pair<Value, Value>> entries) {
  Charge charge(account_, sizeof(Dict) + entries.size() * 2 * sizeof(Value));
  spend(64 + entries.size() * 32);
  int depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, depth_of(key), depth_of(value)});
  return holding(Kind::dict, Dict{std::move(entries), deeper(depth), std::move(charge)});
}

Value Heap::range(Range range) {
  spend(64);
  return holding(Kind::range, range);
}

Value Heap::function(Function function) {
  spend(128);
  function.charge = Charge(account_, sizeof(Function));
  function.depth = deeper(std::max(depth_of(function.self), depth_of(function.caller)));
  return holding(Kind::function, std::move(function));
}

// What stays until the end is never paid back.

Value Heap::name_space() {
  spend(64);
  account_.take_memory(sizeof(Dict));
  Value v;
  v.kind = Kind::name_space;
  v.space = &spaces_.emplace_back();
  return v;
}

Value Heap::generator(std::function<bool(Value&)> next) {
  spend(128);
  account_.take_memory(sizeof(Generator) + 256);
  Value v;
  v.kind = Kind::generator;
  v.generator = &generators_.emplace_back(Generator{std::move(next)});
  return v;
}

Value Heap::cycler(std::vector<Value> items, Kind kind) {
  spend(128);
  account_.take_memory(sizeof(Cycler) + items.size() * sizeof(Value));
  Value v;
  v.kind = kind;
  v.cycler = &cyclers_.emplace_back(Cycler{std::move(items)});
  return v;
}

Loop* Heap::loop(std::function<bool(Value&)> source) {
  spend(128);
  account_.take_memory(sizeof(Loop));
  Loop* loop = &loops_.emplace_back();
  loop->source = std::move(source);
  return loop;
}

Scope* Heap::scope(Scope* parent) {
  spend(128);
  if (free_scopes_.empty()) {
    account_.take_memory(sizeof(Scope));
    free_scopes_.push_back(&scopes_.emplace_back());
  }
  Scope* scope = free_scopes_.back();
  free_scopes_.pop_back();
  scope->parent = parent;
  scope->charge = Charge(account_);
  return scope;
}

void Heap::release(Scope* scope) {
  if (scope->is_kept) return;
  scope->variables.clear();
  scope->charge = {};
  free_scopes_.push_back(scope);
}

const Value* Heap::find(const Dict& dict, const Value& key) {
  for (const auto& [k, value] : dict.entries) {
    if (equal(*this, k, key)) return &value;
  }
  return nullptr;
}

const Value* Heap::find(const Dict& dict, std::string_view key) {
  spend(4 * dict.entries.size());
  for (const auto& [k, value] : dict.entries) {
    if (k.is(Kind::string) && k.text() == key) return &value;
  }
  return nullptr;
}

void Heap::set(std::vector<std::pair<Value, Value>>& entries, const Value& key, const Value& value) {
  if (key.is(Kind::list) || key.is(Kind::dict) || key.is(Kind::undefined)) raise("{} cannot be a key", kind_name(key));
  for (auto& [k, v] : entries) {
    if (!equal(*this, k, key)) continue;
    v = value;
    return;
  }
  spend(32);
  entries.emplace_back(key, value);
}

// Walking over items.

Iterator::Iterator(Heap& heap, Value source) : heap_(&heap), source_(std::move(source)) {
  switch (source_.kind) {
    case Kind::undefined:
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
    case Kind::dict:
    case Kind::range:
    case Kind::generator:
      return;
    default:
      raise("{} cannot be looped over", kind_name(source_));
  }
}

bool Iterator::next(Value& value) {
  heap_->spend(16);
  switch (source_.kind) {
    case Kind::list:
    case Kind::tuple:
    case Kind::view:
      if (at_ == source_.items().size()) return false;
      value = source_.items()[at_++];
      return true;
    case Kind::dict:
      if (at_ == source_.dict().entries.size()) return false;
      value = source_.dict().entries[at_++].first;
      return true;
    case Kind::range:
      if (at_ == source_.range().size()) return false;
      value = Value::of(source_.range().at(at_++));
      return true;
    case Kind::string: {
      if (at_ == source_.text().size()) return false;
      const size_t from = at_;
      at_ += character_at(source_.text(), from).size;
      value = heap_->part(source_.string(), from, at_);
      return true;
    }
    case Kind::generator: {
      Generator& generator = *source_.generator;
      if (generator.next && generator.next(value)) return true;
      generator.next = nullptr;
      return false;
    }
    default:
      return false;
  }
}

bool Loop::fetch(size_t i) {
  Value item;
  while (items.size() <= i && source) {
    if (source(item)) {
      items.push_back(item);
    } else {
      source = nullptr;
    }
  }
  return i < items.size();
}

size_t Loop::size() {
  while (source) fetch(items.size());
  return items.size();
}

std::vector<Value> items_of(Heap& heap, const Value& value) {
  std::vector<Value> items;
  Iterator iterator(heap, value);
  for (Value item; iterator.next(item);) items.push_back(item);
  return items;
}

// Writing.

void Writer::add(std::string_view bytes, bool is_content) {
  heap_.spend(bytes.size());
  charge_.grow(bytes.size());
  text_.add(bytes, is_content);
}

void Writer::add(const MarkedText& text, size_t from, size_t to) {
  const size_t before = text_.content().size(), size = std::min(to, text.size()) - from;
  heap_.spend(size);
  charge_.grow(size);
  text_.add(text, from, to);
  charge_.grow((text_.content().size() - before) * sizeof(ByteRange));
}

void Writer::add(const Value& value) {
  const Value text = markup_ ? escaped(heap_, value) : soft_string(heap_, value);
  add(text.string());
}

void Writer::fill(std::string_view bytes, size_t times) {
  size_t size = 0;
  if (__builtin_mul_overflow(bytes.size(), times, &size)) raise("a text repeated {} times", times);
  heap_.spend(size);
  charge_.grow(size);
  for (size_t i = 0; i < times; ++i) text_.add(bytes);
}

Value Writer::take() {
  charge_ = {};
  return heap_.string(std::move(text_), markup_);
}

// Arguments.

const Value* Arguments::find(size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [n, value] : named) {
    if (n == name) return &value;
  }
  return nullptr;
}

Value Arguments::get(size_t place, std::string_view name, const Value& fallback) const {
  const Value* value = find(place, name);
  return value ? *value : fallback;
}

const Value& Arguments::need(size_t place, std::string_view name) const {
  const Value* value = find(place, name);
  if (!value) raise("the argument '{}' is missing", name);
  return *value;
}

}  // namespace contexture::jinja
