#include "verify/trace.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "base/error.h"
#include "files/gguf.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;  // tokens, and positions
constexpr int64_t kMostHeads = 1 << 16, kMostHeadDim = 1 << 16;

/// Reads "blk.12.step." and the like from the front of a name.
class NameReader {
 public:
  explicit NameReader(std::string_view name) : rest_(name) {}

  std::optional<size_t> number_after(std::string_view word) {
    if (!rest_.starts_with(word)) return std::nullopt;
    rest_.remove_prefix(word.size());
    uint32_t number = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
    const size_t digits = static_cast<size_t>(end - rest_.data());
    // "007" would be another name for 7.
    if (error != std::errc() || (digits > 1 && rest_[0] == '0')) return std::nullopt;
    rest_.remove_prefix(digits);
    return number;
  }

 private:
  std::string_view rest_;
};

}  // namespace

/// Reads one attention.
class Trace::Reader {
 public:
  Reader(const ModelFile& file, const Place& place)
      : file_(file), prefix_(fmt::format("blk.{}.step.{}.seq.{}.", place.layer, place.step, place.sequence)) {
    result_.step = place.step;
    result_.layer = place.layer;
    result_.sequence = place.sequence;
  }

  TracedAttention read() {
    read_shape();
    const auto heads = static_cast<int64_t>(result_.shape.heads), dim = static_cast<int64_t>(result_.shape.head_dim);
    const StoredTensor& q = need("q");
    if (q.shape.size() != 3) refuse(q, {0, heads, dim});
    const int64_t queries = q.shape[0];
    result_.q = values<float>(q, Format::f32, {queries, heads, dim});
    result_.out = values<float>(need("out"), Format::f32, {queries, heads, dim});
    result_.positions = values<int64_t>(need("positions"), Format::i64, {queries});
    for (const int64_t position : result_.positions) check_position(position);
    read_spans();
    return std::move(result_);
  }

  /// Tensors that this attention has.
  size_t tensors() const { return tensors_; }

 private:
  void read_shape() {
    const std::string keys = fmt::format("{}blk.{}.", kTraceKeys, result_.layer);
    AttentionShape& shape = result_.shape;
    const int64_t heads = file_.metadata.get_int(keys + "heads", 1, kMostHeads);
    const int64_t kv_heads = file_.metadata.get_int(keys + "kv_heads", 1, heads);
    const int64_t head_dim = file_.metadata.get_int(keys + "head_dim", 8, kMostHeadDim);
    if (heads % kv_heads != 0 || head_dim % 8 != 0) {
      fail("{}: layer {} has {} heads of {} over {} KV heads, which no model has; trace again", origin(), result_.layer,
           heads, head_dim, kv_heads);
    }
    shape.heads = static_cast<size_t>(heads);
    shape.kv_heads = static_cast<size_t>(kv_heads);
    shape.head_dim = static_cast<size_t>(head_dim);
    shape.scale = read_float(keys + "scale");
    shape.softcap = read_float(keys + "softcap");
    shape.window = file_.metadata.get_int(keys + "window", 0, kMost);
  }

  float read_float(const std::string& key) const {
    const double value = file_.metadata.get_float(key);
    if (std::fabs(value) > 1e30) fail("{}: metadata key {} is {}; trace again", origin(), key, value);
    return static_cast<float>(value);
  }

  void read_spans() {
    const StoredTensor& spans = need("spans");
    if (spans.shape.size() != 2) refuse(spans, {0, 3});
    const int64_t count = spans.shape[0];
    const std::vector<int64_t> numbers = values<int64_t>(spans, Format::i64, {count, 3});
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const int64_t tokens = numbers[i * 3];
      if (tokens < 1 || tokens > kMost) {
        fail("{}: {} says that span {} has {} tokens; trace again", origin(), printable(spans.name), i, tokens);
      }
      TokenSpan span{.count = static_cast<size_t>(tokens),
                     .queries_from = numbers[i * 3 + 1],
                     .queries_until = numbers[i * 3 + 2]};
      const std::string name = name_of_span(i, span);
      read_positions(need(name + "positions"), span);
      read_rows(name + "k", span.count, span.k_format, span.k, span.k_token_stride, span.k_head_stride);
      read_rows(name + "v", span.count, span.v_format, span.v, span.v_token_stride, span.v_head_stride);
      result_.view.push_back(span);
    }
  }

  /// "span.1.cold.": the kind that there is, by any of its tensors.
  std::string name_of_span(size_t i, TokenSpan& span) const {
    for (const SpanKind kind : {SpanKind::sinks, SpanKind::cold, SpanKind::hot, SpanKind::all}) {
      span.kind = kind;
      const std::string name = fmt::format("span.{}.{}.", i, kSpanKinds[static_cast<size_t>(kind)]);
      for (const char* tensor : {"positions", "k", "v"}) {
        if (file_.find(prefix_ + name + tensor)) return name;
      }
      if (kind == SpanKind::all) return name;  // and say that it is missing
    }
    return {};
  }

  void read_positions(const StoredTensor& tensor, TokenSpan& span) {
    const std::vector<int64_t> positions = values<int64_t>(tensor, Format::i64, {static_cast<int64_t>(span.count)});
    span.first_position = check_position(positions.front());
    if (span.count > 1) span.position_stride = check_position(positions[1]) - positions[0];
    for (size_t i = 0; i < span.count; ++i) {
      if (span.position_stride < 1 || check_position(positions[i]) != span.position(i)) {
        fail("{}: {} does not ascend in even steps; trace again", origin(), printable(tensor.name));
      }
    }
  }

  /// K or V of a span, in blocks or in bytes.
  void read_rows(const std::string& name, size_t tokens, Format& format, const std::byte*& data, size_t& token_stride,
                 size_t& head_stride) {
    const size_t dim = result_.shape.head_dim;
    const std::vector<int64_t> shape{static_cast<int64_t>(tokens), static_cast<int64_t>(result_.shape.kv_heads),
                                     static_cast<int64_t>(dim)};
    const StoredTensor* tensor = nullptr;
    for (const Format in_bytes : kv_formats()) {
      if (!is_traced_in_bytes(in_bytes, dim)) continue;
      tensor = file_.find(fmt::format("{}{}.{}_bytes", prefix_, name, contexture::name(in_bytes)));
      if (!tensor) continue;
      check(*tensor, Format::i8, {shape[0], shape[1], static_cast<int64_t>(kv_row_bytes(in_bytes, dim))});
      format = in_bytes;
      ++tensors_;
      break;
    }
    if (!tensor) {
      tensor = &need(name);
      if (!is_kv_format(tensor->format)) {
        fail("{}: {} is {}, which no cache holds; trace again", origin(), printable(tensor->name),
             contexture::name(tensor->format));
      }
      check(*tensor, tensor->format, shape);
      format = tensor->format;
    }
    data = tensor->data.data();
    head_stride = kv_row_bytes(format, dim);
    token_stride = head_stride * result_.shape.kv_heads;
  }

  const StoredTensor& need(const std::string& name) {
    const StoredTensor* tensor = file_.find(prefix_ + name);
    if (!tensor) fail("{}: tensor {}{} is missing; trace again", origin(), prefix_, name);
    ++tensors_;
    return *tensor;
  }

  template <class T>
  std::vector<T> values(const StoredTensor& tensor, Format format, const std::vector<int64_t>& shape) const {
    check(tensor, format, shape);
    std::vector<T> result(tensor.data.size() / sizeof(T));
    std::ranges::copy(tensor.data, std::as_writable_bytes(std::span(result)).begin());
    return result;
  }

  void check(const StoredTensor& tensor, Format format, const std::vector<int64_t>& shape) const {
    if (tensor.format != format) {
      fail("{}: {} is {} and must be {}; trace again", origin(), printable(tensor.name),
           contexture::name(tensor.format), contexture::name(format));
    }
    if (tensor.shape != shape) refuse(tensor, shape);
  }

  /// A 0 in what was expected: any number.
  [[noreturn]] void refuse(const StoredTensor& tensor, const std::vector<int64_t>& expected) const {
    std::string text;
    for (const int64_t n : expected) text += (text.empty() ? "" : ", ") + (n == 0 ? "any" : fmt::format("{}", n));
    fail("{}: {} has the shape ({}) and must have ({}); trace again", origin(), printable(tensor.name),
         fmt::join(tensor.shape, ", "), text);
  }

  int64_t check_position(int64_t position) const {
    if (position < 0 || position > kMost) {
      fail("{}: {} has a token at position {}; trace again", origin(), prefix_, position);
    }
    return position;
  }

  const std::string& origin() const { return file_.metadata.origin(); }

  const ModelFile& file_;
  const std::string prefix_;
  TracedAttention result_;
  size_t tensors_ = 0;
};

Trace::Trace(ModelFile file) : file_(std::move(file)) {
  const Metadata& metadata = file_.metadata;
  const std::string keys = kTraceKeys;
  if (!metadata.has(keys + "version")) {
    fail("{} is no trace: it lacks the key {}version; make one with contexture run --trace", metadata.origin(), keys);
  }
  (void)metadata.get_int(keys + "version", kTraceVersion, kTraceVersion);
  model_ = metadata.get_string(keys + "model");

  std::map<Place, size_t> tensors;
  for (const StoredTensor& tensor : file_.tensors) {
    NameReader name(tensor.name);
    const auto layer = name.number_after("blk."), step = name.number_after(".step."),
               sequence = name.number_after(".seq.");
    if (!layer || !step || !sequence) {
      fail("{}: tensor {} is not a trace's; trace again", metadata.origin(), printable(tensor.name));
    }
    ++tensors[{*step, *layer, *sequence}];
  }
  for (const auto& [place, count] : tensors) {
    Reader reader(file_, place);
    const TracedAttention attention = reader.read();
    if (reader.tensors() != count) {
      fail("{}: layer {}, step {} and sequence {} have {} tensors, of which {} are known; trace again",
           metadata.origin(), place.layer, place.step, place.sequence, count, reader.tensors());
    }
    places_.push_back(place);
  }
  if (places_.empty()) fail("{} holds no attention; trace again", metadata.origin());
}

TracedAttention Trace::attention(size_t i) const {
  return Reader(file_, places_[i]).read();
}

Trace open_trace(const std::string& path) {
  MappedFile file(path);
  ModelFile opened = read_gguf(file.bytes(), path, kTraceFile);
  opened.maps.push_back(std::move(file));
  return Trace(std::move(opened));
}

}  // namespace contexture
