#include "verify/trace_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/gguf.h"
#include "files/gguf_writer.h"
#include "tensor/kv_row.h"
#include "verify/trace.h"

namespace contexture {
namespace {

/// Whether b goes on where a ends: pages of one cache, say.
bool continues(const TokenSpan& a, const TokenSpan& b) {
  return a.kind == b.kind && a.k_format == b.k_format && a.v_format == b.v_format && a.queries_from == b.queries_from &&
         a.queries_until == b.queries_until && a.position_stride == b.position_stride &&
         b.first_position == a.position(a.count);
}

size_t tokens_of(CacheView view) {
  size_t tokens = 0;
  for (const TokenSpan& span : view) tokens += span.count;
  return tokens;
}

/// Throws Error where the path is a file that is not an earlier trace: a slip of the keyboard must not cost a model.
void check_replaceable(const std::string& path) {
  if (!std::filesystem::exists(path)) return;
  try {
    const MappedFile file(path);
    if (read_gguf(file.bytes(), path, kTraceFile).metadata.has(fmt::format("{}version", kTraceKeys))) return;
  } catch (const Error&) {  // no GGUF file, or none that can be read
  }
  fail("{} is there and is no trace; give another path, or delete it", printable(path, 400));
}

int64_t bytes_of_tensor(const StoredTensor& tensor) {
  int64_t bytes = static_cast<int64_t>(bytes_of(tensor.format, static_cast<size_t>(tensor.shape.back())));
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) bytes *= tensor.shape[i];
  return bytes;
}

}  // namespace

SpoolFile::SpoolFile(const std::string& path) : path_(path) {
  std::string name;
  const int fd = create_beside(path, "spool", 0600, name);
  if (fd < 0) refuse("cannot create");
  unlink(name.c_str());  // it lives on as long as it is open
  file_ = fdopen(fd, "w+");
  if (!file_) {
    close(fd);
    refuse("cannot create");
  }
}

SpoolFile::~SpoolFile() {
  std::fclose(file_);
}

void SpoolFile::append(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) refuse("cannot write");
}

void SpoolFile::rewind() {
  if (std::fflush(file_) != 0 || std::fseek(file_, 0, SEEK_SET) != 0) refuse("cannot write");
}

void SpoolFile::read(std::span<std::byte> bytes) {
  if (std::fread(bytes.data(), 1, bytes.size(), file_) != bytes.size()) refuse("cannot read");
}

void SpoolFile::refuse(const char* what) const {
  fail("{} {}: {}; check the folder, its permissions and the room on the disk", what, printable(path_, 400),
       std::strerror(errno));
}

TraceWriter::TraceWriter(const std::string& path, const std::string& model, Choice layers, Choice steps)
    : path_(path), layers_(std::move(layers)), steps_(std::move(steps)), spool_(path) {
  check_replaceable(path);
  metadata_.set_string("general.name", model);
  metadata_.set_int(fmt::format("{}version", kTraceKeys), kTraceVersion);
  metadata_.set_string(fmt::format("{}model", kTraceKeys), model);
}

void TraceWriter::on_attention(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences) {
  if (layer == 0) ++passes_;
  const size_t step = passes_ - 1;
  if (!layers_(layer) || !steps_(step)) return;
  const std::string keys = fmt::format("{}blk.{}.", kTraceKeys, layer);
  metadata_.set_int(keys + "heads", static_cast<int64_t>(shape.heads));
  metadata_.set_int(keys + "kv_heads", static_cast<int64_t>(shape.kv_heads));
  metadata_.set_int(keys + "head_dim", static_cast<int64_t>(shape.head_dim));
  metadata_.set_float(keys + "scale", shape.scale);
  metadata_.set_float(keys + "softcap", shape.softcap);
  metadata_.set_int(keys + "window", shape.window);
  for (size_t n = 0; n < sequences.size(); ++n) {
    add(fmt::format("blk.{}.step.{}.seq.{}.", layer, step, n), shape, sequences[n]);
    ++attentions_;
  }
}

void TraceWriter::add(const std::string& prefix, const AttentionShape& shape, const AttentionQueries& queries) {
  const size_t count = queries.positions.size(), floats = count * shape.heads * shape.head_dim;
  const std::vector<int64_t> q_shape{static_cast<int64_t>(count), static_cast<int64_t>(shape.heads),
                                     static_cast<int64_t>(shape.head_dim)};
  add_tensor(prefix + "q", Format::f32, q_shape, std::span(queries.q, floats));
  add_tensor(prefix + "out", Format::f32, q_shape, std::span<const float>(queries.out, floats));
  add_tensor(prefix + "positions", Format::i64, {q_shape[0]}, queries.positions);

  std::vector<CacheView> parts;
  for (size_t begin = 0, end = 0; begin < queries.view.size(); begin = end) {
    end = begin + 1;
    while (end < queries.view.size() && continues(queries.view[end - 1], queries.view[end])) ++end;
    const CacheView part = queries.view.part(begin, end - begin);
    if (tokens_of(part) > 0) parts.push_back(part);
  }
  std::vector<int64_t> numbers;
  for (const CacheView part : parts) {
    numbers.insert(numbers.end(), {static_cast<int64_t>(tokens_of(part)), part[0].queries_from, part[0].queries_until});
  }
  add_tensor(prefix + "spans", Format::i64, {static_cast<int64_t>(parts.size()), 3}, std::span<const int64_t>(numbers));
  for (size_t i = 0; i < parts.size(); ++i) {
    const char* kind = kSpanKinds[static_cast<size_t>(parts[i][0].kind)];
    add_span(fmt::format("{}span.{}.{}.", prefix, i, kind), shape, parts[i]);
  }
}

/// Spans that continue each other, as one.
void TraceWriter::add_span(const std::string& prefix, const AttentionShape& shape, CacheView alike) {
  std::vector<int64_t> positions;
  for (const TokenSpan& span : alike) {
    for (size_t t = 0; t < span.count; ++t) positions.push_back(span.position(t));
  }
  add_tensor(prefix + "positions", Format::i64, {static_cast<int64_t>(positions.size())},
             std::span<const int64_t>(positions));
  add_rows(prefix + "k", shape, alike, /*is_k=*/true);
  add_rows(prefix + "v", shape, alike, /*is_k=*/false);
}

void TraceWriter::add_rows(const std::string& name, const AttentionShape& shape, CacheView alike, bool is_k) {
  const Format format = is_k ? alike[0].k_format : alike[0].v_format;
  const size_t row = kv_row_bytes(format, shape.head_dim);
  const bool in_bytes = is_traced_in_bytes(format, shape.head_dim);
  begin_tensor(in_bytes ? fmt::format("{}.{}_bytes", name, contexture::name(format)) : name,
               in_bytes ? Format::i8 : format,
               {static_cast<int64_t>(tokens_of(alike)), static_cast<int64_t>(shape.kv_heads),
                static_cast<int64_t>(in_bytes ? row : shape.head_dim)});
  for (const TokenSpan& span : alike) {
    for (size_t t = 0; t < span.count; ++t) {
      for (size_t head = 0; head < shape.kv_heads; ++head) {
        spool_.append({is_k ? span.k_row(t, head) : span.v_row(t, head), row});
      }
    }
  }
}

void TraceWriter::begin_tensor(std::string name, Format format, std::vector<int64_t> shape) {
  tensors_.push_back({.name = std::move(name), .format = format, .shape = std::move(shape), .data = {}});
}

void TraceWriter::finish() {
  if (tensors_.empty())
    fail("nothing was traced: {} is not written; choose steps and layers that there are", printable(path_, 400));
  check_replaceable(path_);  // again: a run may have written another file there
  spool_.rewind();
  std::vector<std::byte> piece(size_t{1} << 20);
  write_gguf(path_, metadata_, tensors_, [&](size_t tensor, const auto& write) {
    for (auto left = static_cast<size_t>(bytes_of_tensor(tensors_[tensor])); left > 0;) {
      const std::span<std::byte> some = std::span(piece).first(std::min(left, piece.size()));
      spool_.read(some);
      write(some);
      left -= some.size();
    }
  });
}

}  // namespace contexture
