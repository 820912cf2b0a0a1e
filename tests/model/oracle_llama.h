#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "files/model_file.h"

namespace contexture {

/// A Llama in float64, and what other families' oracles (oracle_families.cc) change of it: the virtual functions.
class LlamaOracle {
 public:
  using Row = std::vector<double>;

  explicit LlamaOracle(const ModelFile& file);
  virtual ~LlamaOracle() = default;

  /// The logits after one more token.
  Row next(int32_t token);

  double closest_choice() const { return closest_choice_; }

 protected:
  virtual Row embed(int32_t token);
  /// From a layer's normalised input (dim) to Q (heads * head), K and V (kv heads * head), before rotation.
  virtual void project(size_t layer, const Row& x, Row& q, Row& k, Row& v);
  virtual bool rotates(size_t) const { return true; }
  virtual bool in_halves() const;  // channel i turns with i + n / 2, and not 2 i with 2 i + 1
  virtual double frequency(size_t layer, size_t pair);
  virtual double rotation_gain() const { return 1; }
  /// How many tokens a token sees, itself among them; 0: all.
  virtual size_t window(size_t) const { return number("attention.sliding_window", 0); }
  virtual double score(double product) const;
  virtual Row feed_forward(size_t layer, const Row& x);
  virtual double activation(double x) const;
  /// Adds what attention or a feed-forward gave; `post_norm` names the norm that some families put on it.
  virtual void add_residual(size_t layer, std::string_view post_norm, Row branch, Row& x);
  virtual Row logits(const Row& x);

  // The file's keys, without the family's name before them.
  size_t number(std::string_view key, size_t fallback) const;
  double real(std::string_view key, double fallback) const;

  static std::string in_block(size_t layer, std::string_view name);
  bool has(const std::string& tensor) const { return file_.find(tensor) != nullptr; }
  const Row& vector(const std::string& tensor) { return weights(tensor).rows[0]; }
  /// Rows first .. first + count (count 0: all) of a matrix, or of a stack of them end to end, times x.
  Row multiply(const std::string& tensor, Row x, size_t first = 0, size_t count = 0);
  Row gated(const Row& gate, const Row& up) const;
  /// RMS norm of x[from .. from + size of the weight), in place.
  void norm_part(const std::string& tensor, Row& x, size_t from);
  Row norm(const std::string& tensor, Row x);
  double plain_frequency(double base, size_t pair) const;

  const ModelFile& file_;
  const std::string family_;
  const size_t dim_, heads_, kv_heads_, head_, rotated_;

 private:
  struct Decoded {
    std::vector<Row> rows;
    bool quantised;
  };

  const Decoded& weights(const std::string& tensor);
  Row experts(size_t layer, const Row& x);
  Row expert(size_t layer, size_t index, const Row& x);
  void rotate(size_t layer, size_t heads, Row& x);
  Row attention(size_t layer, const Row& q) const;

  size_t position_ = 0;
  std::vector<std::vector<Row>> k_, v_;  // (layer, token)
  double closest_choice_ = std::numeric_limits<double>::infinity();
  std::map<std::string, Decoded> decoded_;
};

}  // namespace contexture
