#pragma once

#include <functional>
#include <string>
#include <vector>

#include "files/model_file.h"
#include "model/step.h"

namespace contexture {

/// Bytes on the disk that nobody else sees, gone with this however the program ends.
class SpoolFile {
 public:
  /// In the folder of `path`. Everything here throws Error.
  explicit SpoolFile(const std::string& path);
  ~SpoolFile();
  SpoolFile(const SpoolFile&) = delete;
  SpoolFile& operator=(const SpoolFile&) = delete;

  void append(std::span<const std::byte> bytes);
  /// Reads from the beginning again.
  void rewind();
  void read(std::span<std::byte> bytes);

 private:
  [[noreturn]] void refuse(const char* what) const;
  std::string path_;
  std::FILE* file_ = nullptr;
};

/// Writes a trace (verify/trace.h) of what it observes. Nothing of it is held in memory but the tensors' names: their
/// bytes wait on the disk, and the file appears, whole, when it is finished. Throws Error where the disk fails.
class TraceWriter final : public AttentionObserver {
 public:
  using Choice = std::function<bool(size_t)>;
  /// `layers`, `steps`: which are traced. Steps are passes of the model from now on, counted from 0.
  TraceWriter(const std::string& path, const std::string& model, Choice layers, Choice steps);

  void on_attention(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences) override;
  size_t attentions() const { return attentions_; }
  /// Throws Error also where nothing was traced.
  void finish();

 private:
  void add(const std::string& prefix, const AttentionShape& shape, const AttentionQueries& queries);
  void add_span(const std::string& prefix, const AttentionShape& shape, CacheView alike);
  void add_rows(const std::string& name, const AttentionShape& shape, CacheView alike, bool is_k);
  void begin_tensor(std::string name, Format format, std::vector<int64_t> shape);
  template <class T>
  void add_tensor(std::string name, Format format, std::vector<int64_t> shape, std::span<const T> values) {
    begin_tensor(std::move(name), format, std::move(shape));
    spool_.append(std::as_bytes(values));
  }

  std::string path_;
  Choice layers_, steps_;
  SpoolFile spool_;
  Metadata metadata_;
  std::vector<StoredTensor> tensors_;  // without data
  size_t passes_ = 0, attentions_ = 0;
};

}  // namespace contexture
