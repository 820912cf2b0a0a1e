#include "files/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"

// A pickle is a program for a machine with a stack. Ours is protocol 2, of which torch.save uses:
//
//   GLOBAL                 pushes a function or a class by module and name: here one of a list
//   REDUCE                 calls it: here what the list says it makes
//   BINPERSID              makes a storage of ('storage', type, key, place, number of elements)
//   BUILD                  sets attributes: here only of dictionaries, and forgotten (a state_dict's _metadata)
//   PUT, GET               remember a value and push it again
//   and the makers of numbers, texts, tuples, lists and dictionaries

namespace contexture {
namespace {

using Kind = PickleValue::Kind;

constexpr size_t most_arguments = 16;
constexpr size_t most_dimensions = 64;   // PyTorch's own limit
constexpr size_t most_values = 1 << 20;  // a model with 10,000 tensors and its optimizer's state makes some 400,000

/// What a global may be used for.
enum class Use : uint8_t { ordered_dict, tensor, parameter, size, storage, nothing };

struct Global {
  std::string_view module, name, full;
  Use use;
};

constexpr Global globals[] = {
    {"collections", "OrderedDict", "collections.OrderedDict", Use::ordered_dict},
    {"torch._utils", "_rebuild_tensor_v2", "torch._utils._rebuild_tensor_v2", Use::tensor},
    {"torch._utils", "_rebuild_parameter", "torch._utils._rebuild_parameter", Use::parameter},
    {"torch", "Size", "torch.Size", Use::size},
    {"torch", "FloatStorage", "torch.FloatStorage", Use::storage},
    {"torch", "HalfStorage", "torch.HalfStorage", Use::storage},
    {"torch", "BFloat16Storage", "torch.BFloat16Storage", Use::storage},
    {"torch", "DoubleStorage", "torch.DoubleStorage", Use::storage},
    {"torch", "LongStorage", "torch.LongStorage", Use::storage},
    {"torch", "IntStorage", "torch.IntStorage", Use::storage},
    {"torch", "ShortStorage", "torch.ShortStorage", Use::storage},
    {"torch", "CharStorage", "torch.CharStorage", Use::storage},
    {"torch", "ByteStorage", "torch.ByteStorage", Use::storage},
    {"torch", "BoolStorage", "torch.BoolStorage", Use::storage},
    {"torch", "ComplexFloatStorage", "torch.ComplexFloatStorage", Use::storage},
    {"torch", "ComplexDoubleStorage", "torch.ComplexDoubleStorage", Use::storage},
    {"torch", "float32", "torch.float32", Use::nothing},
    {"torch", "float16", "torch.float16", Use::nothing},
    {"torch", "bfloat16", "torch.bfloat16", Use::nothing},
};

enum Opcode : uint8_t {
  proto = 0x80,
  global = 'c',
  reduce = 'R',
  build = 'b',
  persistent = 'Q',
  stop = '.',
  mark = '(',
  empty_tuple = ')',
  tuple = 't',
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  empty_list = ']',
  append = 'a',
  appends = 'e',
  empty_dict = '}',
  setitem = 's',
  setitems = 'u',
  put1 = 'q',
  put4 = 'r',
  get1 = 'h',
  get4 = 'j',
  text4 = 'X',
  int1 = 'K',
  int2 = 'M',
  int4 = 'J',
  long1 = 0x8a,
  float8 = 'G',
  none = 'N',
  new_true = 0x88,
  new_false = 0x89,
};

/// The names, as Python's pickletools has them, of opcodes that are refused.
std::string opcode_name(uint8_t code) {
  struct Name {
    uint8_t code;
    std::string_view name;
  };
  constexpr Name names[] = {
      {'0', "POP"},
      {'1', "POP_MARK"},
      {'2', "DUP"},
      {'F', "FLOAT"},
      {'I', "INT"},
      {'L', "LONG"},
      {'P', "PERSID"},
      {'S', "STRING"},
      {'T', "BINSTRING"},
      {'U', "SHORT_BINSTRING"},
      {'V', "UNICODE"},
      {'d', "DICT"},
      {'g', "GET"},
      {'i', "INST"},
      {'l', "LIST"},
      {'o', "OBJ"},
      {'p', "PUT"},
      {'B', "BINBYTES"},
      {'C', "SHORT_BINBYTES"},
      {0x81, "NEWOBJ"},
      {0x82, "EXT1"},
      {0x83, "EXT2"},
      {0x84, "EXT4"},
      {0x8b, "LONG4"},
      {0x8c, "SHORT_BINUNICODE"},
      {0x8d, "BINUNICODE8"},
      {0x8e, "BINBYTES8"},
      {0x8f, "EMPTY_SET"},
      {0x90, "ADDITEMS"},
      {0x91, "FROZENSET"},
      {0x92, "NEWOBJ_EX"},
      {0x93, "STACK_GLOBAL"},
      {0x94, "MEMOIZE"},
      {0x95, "FRAME"},
      {0x96, "BYTEARRAY8"},
      {0x97, "NEXT_BUFFER"},
      {0x98, "READONLY_BUFFER"},
  };
  for (const Name& n : names) {
    if (n.code == code) return std::string(n.name);
  }
  return fmt::format("{:#04x}", code);
}

}  // namespace

/// The machine.
class Unpickler {
 public:
  Unpickler(Pickle& pickle, const std::string& path) : p_(pickle), path_(path) {}

  void run() {
    while (step()) {
    }
    if (stack_.size() != 1 || !marks_.empty()) refuse("it ends with a stack in disorder");
    p_.root_ = stack_[0];
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail("{}: byte {} of the pickle: {}; save the bare state_dict with torch.save", printable(path_, 400), position_,
         what);
  }

  // ---- bytes ----

  std::string_view take(size_t size) {
    if (size > p_.bytes_.size() - position_) refuse("cut off");
    const std::string_view taken(p_.bytes_.data() + position_, size);
    position_ += size;
    return taken;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view line() {
    const std::string_view rest(p_.bytes_.data() + position_, p_.bytes_.size() - position_);
    const size_t end = rest.find('\n');
    if (end == rest.npos) refuse("cut off");
    position_ += end + 1;
    return rest.substr(0, end);
  }

  // ---- the stack ----

  void push(uint32_t place) {
    if (stack_.size() == most_values) refuse("it needs too large a stack");
    stack_.push_back(place);
  }

  void push(PickleValue value) {
    if (p_.values_.size() == most_values) refuse("it makes too many values");
    p_.values_.push_back(std::move(value));
    push(static_cast<uint32_t>(p_.values_.size() - 1));
  }

  uint32_t pop() {
    if (stack_.size() == (marks_.empty() ? 0 : marks_.back())) refuse("the stack is empty");
    const uint32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }

  PickleValue& top(Kind kind, const char* name) {
    if (stack_.size() == (marks_.empty() ? 0 : marks_.back())) refuse("the stack is empty");
    PickleValue& value = p_.values_[stack_.back()];
    if (value.kind != kind) refuse(fmt::format("a {} belongs on top of the stack", name));
    return value;
  }

  /// Takes off the newest `count`, in the order in which they were pushed.
  std::vector<uint32_t> pop_many(size_t count) {
    std::vector<uint32_t> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }

  std::vector<uint32_t> pop_to_mark() {
    if (marks_.empty()) refuse("there is no mark");
    std::vector<uint32_t> items(stack_.begin() + marks_.back(), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  static PickleValue list_of(std::vector<uint32_t> items) {
    PickleValue value{.kind = Kind::list, .text = {}, .items = {}};
    value.items = std::move(items);
    return value;
  }

  static PickleValue integer(int64_t number, Kind kind = Kind::integer) {
    return {.kind = kind, .integer = number, .text = {}, .items = {}};
  }

  static PickleValue empty(Kind kind) { return {.kind = kind, .text = {}, .items = {}}; }

  void extend(PickleValue& container, const std::vector<uint32_t>& items) {
    if (container.kind == Kind::dict && items.size() % 2 != 0) refuse("a key has no value");
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  // ---- the memo ----

  void remember(uint32_t index) {
    if (index >= most_values) refuse("it remembers too many values");
    if (stack_.empty()) refuse("the stack is empty");
    if (memo_.size() <= index) memo_.resize(index + 1, unset);
    memo_[index] = stack_.back();
  }

  void recall(uint32_t index) {
    if (index >= memo_.size() || memo_[index] == unset) refuse("it asks for a value that it never remembered");
    push(memo_[index]);
  }

  // ---- globals and what they make ----

  void push_global() {
    const std::string_view module = line(), name = line();
    for (size_t i = 0; i < std::size(globals); ++i) {
      if (globals[i].module != module || globals[i].name != name) continue;
      return push({.kind = Kind::global, .integer = static_cast<int64_t>(i), .text = globals[i].full, .items = {}});
    }
    refuse(fmt::format("it wants {}.{}, which has no place in a model", printable(module), printable(name)));
  }

  bool is(uint32_t place, Kind kind) const { return p_.values_[place].kind == kind; }

  /// A list may be asked for again and again, so a long one must be refused at a glance.
  bool is_shape(uint32_t place) const {
    const PickleValue& value = p_.values_[place];
    return value.kind == Kind::list && value.items.size() <= most_dimensions &&
           std::all_of(value.items.begin(), value.items.end(),
                       [this](uint32_t item) { return is(item, Kind::integer); });
  }

  void call() {
    const uint32_t arguments = pop(), function = pop();
    if (!is(arguments, Kind::list) || !is(function, Kind::global)) refuse("it calls something that is no function");
    if (p_.values_[arguments].items.size() > most_arguments) refuse("it calls a function with too many arguments");
    const std::vector<uint32_t> args = p_.values_[arguments].items;
    switch (globals[p_.values_[function].integer].use) {
      case Use::ordered_dict:
        if (!args.empty()) break;
        return push(empty(Kind::dict));
      case Use::tensor:  // (storage, offset, shape, strides, requires_grad, hooks)
        if (args.size() < 4 || !is(args[0], Kind::storage) || !is(args[1], Kind::integer) || !is_shape(args[2]) ||
            !is_shape(args[3])) {
          break;
        }
        return push({.kind = Kind::tensor, .text = {}, .items = {args.begin(), args.begin() + 4}});
      case Use::parameter:  // (tensor, requires_grad, hooks)
        if (args.empty() || !is(args[0], Kind::tensor)) break;
        return push(args[0]);
      case Use::size:  // (shape)
        if (args.size() != 1 || !is_shape(args[0])) break;
        return push(args[0]);
      default:
        break;
    }
    refuse(fmt::format("it calls {} with arguments that it does not take", p_.values_[function].text));
  }

  /// ('storage', type, key, place, number of elements)
  void push_storage() {
    const uint32_t id = pop();
    const PickleValue& of = p_.values_[id];
    if (of.kind != Kind::list || of.items.size() != 5 || p_.values_[of.items[0]].text != "storage" ||
        !is(of.items[1], Kind::global) || globals[p_.values_[of.items[1]].integer].use != Use::storage ||
        !is(of.items[2], Kind::text)) {
      refuse("it refers to something that is no storage");
    }
    push({.kind = Kind::storage, .text = p_.values_[of.items[1]].text, .items = {of.items[2]}});
  }

  int64_t long_integer() {
    const std::string_view bytes = take(number<uint8_t>());
    if (bytes.size() > sizeof(int64_t)) refuse("an integer of more than 64 bits");
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    const size_t missing = 64 - 8 * bytes.size();
    if (missing == 64) return 0;
    return static_cast<int64_t>(value << missing) >> missing;  // spreads the sign
  }

  /// One instruction; false at the end.
  bool step() {
    const auto code = number<uint8_t>();
    switch (code) {
      case proto:
        if (const auto version = number<uint8_t>(); version != 2) {
          refuse(fmt::format("protocol {} is not supported, 2 is (torch.save's own)", version));
        }
        break;
      case stop:
        return false;
      case global:
        push_global();
        break;
      case reduce:
        call();
        break;
      case persistent:
        push_storage();
        break;
      case build:
        top(Kind::dict, "dictionary");  // the state
        pop();
        top(Kind::dict, "dictionary");
        break;
      case mark:
        if (marks_.size() == most_values) refuse("it sets too many marks");
        marks_.push_back(static_cast<uint32_t>(stack_.size()));
        break;
      case put1:
        remember(number<uint8_t>());
        break;
      case put4:
        remember(number<uint32_t>());
        break;
      case get1:
        recall(number<uint8_t>());
        break;
      case get4:
        recall(number<uint32_t>());
        break;
      default:
        if (!make_container(code) && !make_scalar(code)) {
          refuse(fmt::format("opcode {}, which torch.save does not write for a model", opcode_name(code)));
        }
    }
    return true;
  }

  bool make_container(uint8_t code) {
    switch (code) {
      case empty_tuple:
      case empty_list:
        push(empty(Kind::list));
        return true;
      case empty_dict:
        push(empty(Kind::dict));
        return true;
      case tuple1:
      case tuple2:
      case tuple3:
        push(list_of(pop_many(code - tuple1 + 1u)));
        return true;
      case tuple:
        push(list_of(pop_to_mark()));
        return true;
      case append:
      case setitem: {
        const std::vector<uint32_t> items = pop_many(code == append ? 1 : 2);
        extend(top(code == append ? Kind::list : Kind::dict, code == append ? "list" : "dictionary"), items);
        return true;
      }
      case appends:
      case setitems: {
        const std::vector<uint32_t> items = pop_to_mark();
        extend(top(code == appends ? Kind::list : Kind::dict, code == appends ? "list" : "dictionary"), items);
        return true;
      }
      default:
        return false;
    }
  }

  bool make_scalar(uint8_t code) {
    switch (code) {
      case none:
        push(empty(Kind::none));
        return true;
      case new_true:
      case new_false:
        push(integer(code == new_true, Kind::boolean));
        return true;
      case int1:
        push(integer(number<uint8_t>()));
        return true;
      case int2:
        push(integer(number<uint16_t>()));
        return true;
      case int4:
        push(integer(number<int32_t>()));
        return true;
      case long1:
        push(integer(long_integer()));
        return true;
      case float8:  // big-endian, alone of all numbers
        push({.kind = Kind::real,
              .real = std::bit_cast<double>(__builtin_bswap64(number<uint64_t>())),
              .text = {},
              .items = {}});
        return true;
      case text4: {
        const std::string_view text = take(number<uint32_t>());
        push({.kind = Kind::text, .text = text, .items = {}});
        return true;
      }
      default:
        return false;
    }
  }

  static constexpr uint32_t unset = UINT32_MAX;

  Pickle& p_;
  const std::string& path_;
  size_t position_ = 0;
  std::vector<uint32_t> stack_, marks_, memo_;
};

Pickle::Pickle(std::vector<char> bytes, const std::string& path) : bytes_(std::move(bytes)) {
  Unpickler(*this, path).run();
}

const PickleValue* Pickle::find(const PickleValue& dict, std::string_view key) const {
  if (dict.kind != Kind::dict) return nullptr;
  for (size_t i = dict.items.size(); i >= 2; i -= 2) {
    const PickleValue& candidate = values_[dict.items[i - 2]];
    if (candidate.kind == Kind::text && candidate.text == key) return &values_[dict.items[i - 1]];
  }
  return nullptr;
}

}  // namespace contexture
