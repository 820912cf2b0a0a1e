#include "backends/static_graph/constant_data.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "backends/static_graph/constants.h"
#include "base/error.h"
#include "kernels/packed_matrix.h"
#include "model/weights.h"

namespace contexture {
namespace {

constexpr size_t kPieceBytes = size_t{8} << 20;

template <class T>
std::span<const std::byte> bytes_of_vector(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

Matrix matrix_of(const ConstantSource& source, size_t rows, size_t columns) {
  Matrix m{source.tensor->format, rows, columns, nullptr};
  m.data = source.tensor->data.data() + source.first_row * m.row_bytes();
  return m;
}

std::vector<float> floats_of(const StoredTensor& tensor, size_t count) {
  std::vector<float> values(count);
  info(tensor.format).decode(tensor.data.data(), values.data(), count);
  return values;
}

void give_back(const ModelFile& file, std::span<const std::byte> bytes) {
  for (const MappedFile& map : file.maps) map.give_back(bytes);
}

/// A row's weights into its panel (constants.h).
void place_row(const FixedRow& row, ConstantKind kind, size_t row_in_panel, std::byte* panel) {
  const bool bytes = kind == ConstantKind::i8;
  for (size_t column = 0; column < row.weights.size(); ++column) {
    const size_t unit = column / 32, in_unit = column % 32;
    if (bytes) {
      std::byte* at = panel + unit * 512 + in_unit / 4 * 64 + row_in_panel * 4 + in_unit % 4;
      *at = static_cast<std::byte>(row.weights[column] + 128);
    } else {
      const size_t in_half = in_unit % 16;
      std::byte* at = panel + unit * 256 + in_half / 4 * 64 + row_in_panel * 4 + in_half % 4;
      const unsigned nibble = static_cast<unsigned>(row.weights[column] + 8), shift = in_unit < 16 ? 0 : 4;
      *at = (*at & ~std::byte(15u << shift)) | std::byte(nibble << shift);
    }
  }
}

}  // namespace

ConstantData::ConstantData(const ModelFile& file, const ModelConfig& config, size_t planned_context, ThreadPool& pool)
    : file_(file),
      config_(config),
      pool_(pool),
      frequencies_(read_rope_frequencies(file, config, planned_context)[0]) {}

void ConstantData::produce(const ShardDraft& draft, size_t constant, const ConstantSink& write) const {
  const GraphConstant& c = draft.program.constants[constant];
  const ConstantSource& source = draft.sources[constant];
  switch (source.kind) {
    case ConstantSource::Kind::matrix:
      return c.kind == ConstantKind::f32_panels ? produce_f32_panels(c, source, write)
                                                : produce_fixed_matrix(c, source, write);
    case ConstantSource::Kind::vector:
      return produce_vector(c, source, write);
    case ConstantSource::Kind::bias:
      return produce_bias(draft, constant, write);
    case ConstantSource::Kind::embedding:
      return produce_embedding(c, write);
    case ConstantSource::Kind::cos:
    case ConstantSource::Kind::sin:
      return produce_rope(c, source.kind == ConstantSource::Kind::sin, write);
  }
}

void ConstantData::produce_f32_panels(const GraphConstant& c, const ConstantSource& source,
                                      const ConstantSink& write) const {
  const Matrix from = matrix_of(source, c.rows, c.columns);
  const PackedMatrix packed{.format = Format::f32, .rows = c.rows, .columns = c.columns};
  constexpr size_t kRows = PackedMatrix::panel_rows;
  const size_t piece = std::max<size_t>(1, kPieceBytes / packed.panel_bytes());
  std::vector<float> rows, panels;
  for (size_t first = 0; first < packed.panels(); first += piece) {
    const size_t count = std::min(piece, packed.panels() - first);
    const size_t first_row = first * kRows, row_count = std::min(c.rows - first_row, count * kRows);
    rows.resize(row_count * c.columns);
    pool_.run(row_count, [&](size_t r, int) {
      info(from.format).decode(from.row(first_row + r), rows.data() + r * c.columns, c.columns);
    });
    panels.resize(count * packed.panel_bytes() / sizeof(float));
    const Matrix decoded{Format::f32, row_count, c.columns, reinterpret_cast<const std::byte*>(rows.data())};
    pool_.run(count, [&](size_t i, int) {
      pack_panel(decoded, i, reinterpret_cast<std::byte*>(panels.data()) + i * packed.panel_bytes());
    });
    write(bytes_of_vector(panels));
    give_back(file_, {from.row(first_row), row_count * from.row_bytes()});
  }
}

void ConstantData::produce_fixed_matrix(const GraphConstant& c, const ConstantSource& source,
                                        const ConstantSink& write) const {
  const Matrix from = matrix_of(source, c.rows, c.columns);
  const MatrixParts parts = parts_of(c);
  constexpr size_t kRows = MatrixParts::kPanelRows;
  std::vector<float> scales(parts.panels * kRows, 1.f);
  std::vector<int32_t> sums(parts.panels * kRows, 0);
  std::vector<uint8_t> factors(parts.quants - parts.factors, 0);
  // Zeros: the halves of a byte of nibbles are 8 then.
  std::vector<std::byte> quants(parts.panels * parts.panel_bytes(), std::byte(c.kind == ConstantKind::i8 ? 128 : 0x88));
  struct Scratch {
    std::vector<float> floats;
    FixedRow row;
  };
  std::vector<Scratch> scratch(static_cast<size_t>(pool_.threads()));
  std::atomic<bool> finite = true;
  pool_.run(parts.panels, [&](size_t panel, int thread) {
    auto& [floats, row] = scratch[static_cast<size_t>(thread)];
    floats.resize(c.columns);
    for (size_t i = 0; i < kRows; ++i) {
      const size_t r = panel * kRows + i;
      for (size_t b = 0; b < parts.blocks; ++b) factors[(panel * parts.blocks + b) * kRows + i] = 1;
      if (r >= c.rows) continue;
      info(from.format).decode(from.row(r), floats.data(), c.columns);
      for (const float f : floats) {
        if (!std::isfinite(f)) finite = false;
      }
      if (!finite) return;
      quantise_weights(floats, c.kind, c.block, row);
      scales[r] = row.scale;
      for (size_t column = 0; column < c.columns; ++column) {
        sums[r] += row.weights[column] * (c.block ? row.factors[column / c.block] : 1);
      }
      for (size_t b = 0; b < row.factors.size(); ++b) factors[(panel * parts.blocks + b) * kRows + i] = row.factors[b];
      place_row(row, c.kind, i, quants.data() + panel * parts.panel_bytes());
    }
    give_back(file_, {from.row(panel * kRows), std::min(kRows, c.rows - panel * kRows) * from.row_bytes()});
  });
  if (!finite) fail("{}: {} holds numbers that are not finite", printable(file_.path, 400), c.name);
  write(bytes_of_vector(scales));
  write(bytes_of_vector(sums));
  write(bytes_of_vector(factors));
  write(quants);
}

void ConstantData::produce_vector(const GraphConstant& c, const ConstantSource& source,
                                  const ConstantSink& write) const {
  const std::vector<float> values = floats_of(*source.tensor, c.columns);
  if (c.kind == ConstantKind::f32) return write(bytes_of_vector(values));
  std::vector<int16_t> raw(values.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    raw[i] = static_cast<int16_t>(std::clamp(std::lround(values[i] / c.encoding.scale), -32767L, 32767L));
  }
  write(bytes_of_vector(raw));
}

/// In units of the sums that it is added to: the input's scale times the row's.
void ConstantData::produce_bias(const ShardDraft& draft, size_t constant, const ConstantSink& write) const {
  const GraphConstant& c = draft.program.constants[constant];
  const ConstantSource& source = draft.sources[constant];
  const std::vector<float> values = floats_of(*source.tensor, c.columns);
  if (c.kind == ConstantKind::f32) return write(bytes_of_vector(values));
  const GraphConstant& weight = draft.program.constants[source.weight];
  const Matrix from = matrix_of(draft.sources[source.weight], weight.rows, weight.columns);
  std::vector<int64_t> raw(values.size());
  std::vector<float> floats(weight.columns);
  FixedRow row;
  for (size_t r = 0; r < raw.size(); ++r) {
    info(from.format).decode(from.row(r), floats.data(), floats.size());
    quantise_weights(floats, weight.kind, weight.block, row);
    const double unit = static_cast<double>(source.input_scale) * static_cast<double>(row.scale);
    raw[r] = static_cast<int64_t>(std::clamp(std::round(static_cast<double>(values[r]) / unit), -1e15, 1e15));
  }
  write(bytes_of_vector(raw));
}

void ConstantData::embedding_row(size_t token, float* out) const {
  const StoredTensor& tensor = *file_.find("token_embd.weight");
  const FormatInfo& format = info(tensor.format);
  format.decode(tensor.data.data() + token * bytes_of(tensor.format, config_.dim), out, config_.dim);
  if (config_.embedding_scale == 1) return;
  for (size_t i = 0; i < config_.dim; ++i) out[i] *= config_.embedding_scale;
}

Range ConstantData::embedding_range() const {
  std::vector<Range> ranges(static_cast<size_t>(pool_.threads()));
  constexpr size_t kRows = 256;
  const StoredTensor& tensor = *file_.find("token_embd.weight");
  const size_t row_bytes = bytes_of(tensor.format, config_.dim);
  pool_.run((config_.vocabulary + kRows - 1) / kRows, [&](size_t part, int thread) {
    std::vector<float> row(config_.dim);
    const size_t first = part * kRows, last = std::min(config_.vocabulary, first + kRows);
    for (size_t token = first; token < last; ++token) {
      embedding_row(token, row.data());
      ranges[static_cast<size_t>(thread)].add(row);
    }
    give_back(file_, tensor.data.subspan(first * row_bytes, (last - first) * row_bytes));
  });
  Range all;
  for (const Range& r : ranges) all = {std::min(all.low, r.low), std::max(all.high, r.high)};
  return all;
}

void ConstantData::produce_embedding(const GraphConstant& c, const ConstantSink& write) const {
  const StoredTensor& tensor = *file_.find("token_embd.weight");
  const size_t row_bytes = bytes_of(tensor.format, c.columns);
  const size_t piece = std::max<size_t>(1, kPieceBytes / (c.columns * sizeof(float)));
  std::vector<float> floats;
  std::vector<uint16_t> raw;
  for (size_t first = 0; first < c.rows; first += piece) {
    const size_t rows = std::min(piece, c.rows - first);
    floats.resize(rows * c.columns);
    raw.resize(floats.size());
    pool_.run(rows, [&](size_t r, int) {
      float* row = floats.data() + r * c.columns;
      embedding_row(first + r, row);
      if (c.kind == ConstantKind::f32) return;
      for (size_t i = 0; i < c.columns; ++i) {
        const long value = std::lround(row[i] / c.encoding.scale) + c.encoding.zero_point;
        raw[r * c.columns + i] = static_cast<uint16_t>(std::clamp(value, 0L, 65535L));
      }
    });
    write(c.kind == ConstantKind::f32 ? bytes_of_vector(floats) : bytes_of_vector(raw));
    give_back(file_, tensor.data.subspan(first * row_bytes, rows * row_bytes));
  }
}

void ConstantData::produce_rope(const GraphConstant& c, bool sine, const ConstantSink& write) const {
  std::vector<float> floats(c.rows * c.columns);
  std::vector<uint16_t> raw(c.kind == ConstantKind::u16 ? floats.size() : 0);
  for (size_t i = 0; i < floats.size(); ++i) {
    const double angle = static_cast<double>(i / c.columns) * frequencies_[i % c.columns];
    const double value = config_.rope().magnitude * (sine ? std::sin(angle) : std::cos(angle));
    floats[i] = static_cast<float>(value);
    if (raw.empty()) continue;
    raw[i] = static_cast<uint16_t>(
        std::clamp(std::lround(value / static_cast<double>(c.encoding.scale)) + c.encoding.zero_point, 0L, 65535L));
  }
  write(raw.empty() ? bytes_of_vector(floats) : bytes_of_vector(raw));
}

namespace {

/// The nearest whole number, of magnitudes below 2^22: adding 1.5 · 2^23 leaves no room for a fraction. Unlike
/// std::nearbyint it is no call, and the loops below are done in vectors.
float rounded(float x) {
  constexpr float kNoFraction = 12582912.f;
  return (x + kNoFraction) - kNoFraction;
}

float largest_of(std::span<const float> values) {
  float largest = 0;
  for (const float v : values) largest = std::max(largest, std::fabs(v));
  return largest;
}

/// The nearest of -limit…limit times `scale`.
void round_all(std::span<const float> values, float scale, float limit, int8_t* to) {
  const float inverse = 1 / scale;
  for (size_t i = 0; i < values.size(); ++i) {
    to[i] = static_cast<int8_t>(rounded(std::clamp(values[i] * inverse, -limit, limit)));
  }
}

/// The sum of the squares of what rounding does.
float error_of(std::span<const float> values, float scale, float limit) {
  const float inverse = 1 / scale;
  float error[8] = {};
  for (size_t i = 0; i < values.size(); ++i) {
    const float d = values[i] - scale * rounded(std::clamp(values[i] * inverse, -limit, limit));
    error[i % 8] += d * d;
  }
  return ((error[0] + error[1]) + (error[2] + error[3])) + ((error[4] + error[5]) + (error[6] + error[7]));
}

/// A scale that cuts off the largest weights can leave a smaller error: the best of some.
float best_scale(std::span<const float> row, float largest, float limit) {
  float best = largest / limit, least = error_of(row, best, limit);
  for (int percent = 96; percent >= 64; percent -= 4) {
    const float scale = largest / limit * static_cast<float>(percent) / 100, error = error_of(row, scale, limit);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

/// Likewise of a block: its largest weight says what factor holds it, and one or two below may be better.
uint8_t best_factor(std::span<const float> block, float scale) {
  const float holds = largest_of(block) / 7 / scale;
  const int from = std::clamp(static_cast<int>(holds) - 2, 1, 16), to = std::clamp(static_cast<int>(holds) + 1, 1, 16);
  int best = to;
  float least = std::numeric_limits<float>::infinity();
  for (int factor = from; factor <= to; ++factor) {
    const float error = error_of(block, scale * static_cast<float>(factor), 7);
    if (error < least) {
      least = error;
      best = factor;
    }
  }
  return static_cast<uint8_t>(best);
}

}  // namespace

void quantise_weights(std::span<const float> row, ConstantKind kind, size_t block, FixedRow& out) {
  const float limit = kind == ConstantKind::i8 ? 127 : 7, largest = largest_of(row);
  out.weights.assign(row.size(), 0);
  out.factors.clear();
  out.scale = largest > 1e-30f ? largest / limit : 1.f;
  if (kind != ConstantKind::i4_blocks) {
    if (kind == ConstantKind::i4 && largest > 1e-30f) out.scale = best_scale(row, largest, limit);
    return round_all(row, out.scale, limit, out.weights.data());
  }
  out.scale /= 16;
  for (size_t begin = 0; begin < row.size(); begin += block) {
    const std::span<const float> values = row.subspan(begin, std::min(block, row.size() - begin));
    out.factors.push_back(best_factor(values, out.scale));
    round_all(values, out.scale * out.factors.back(), limit, out.weights.data() + begin);
  }
}

}  // namespace contexture
