#include "kernels/elementwise.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "hwy/contrib/math/math-inl.h"
#include "kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

void rms_norm_simd(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, float epsilon, size_t columns,
                   float* HWY_RESTRICT out) {
  Floats squares = zeros();
  const size_t whole = columns / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) fma(load(x + i), load(x + i), squares);
  if (whole < columns) {
    const Floats rest = load_partial(x + whole, columns - whole);
    fma(rest, rest, squares);
  }
  const float scale = 1 / std::sqrt(sum(squares) / static_cast<float>(columns) + epsilon);
  for (size_t i = 0; i < columns; ++i) out[i] = x[i] * scale * weight[i];
}

/// silu(gate) · up for 16 lanes.
HWY_INLINE Floats swiglu16(const Floats& gate, const Floats& up) {
  const FloatTag d;
  Floats out;
  for (size_t p = 0; p < kParts; ++p) {
    // Below -87 silu is zero to the last bit that matters, and exp(87) is still finite.
    const auto g = gate.part[p];
    const auto e = hn::Exp(d, hn::Min(hn::Neg(g), hn::Set(d, 87.f)));
    out.part[p] = hn::Mul(hn::Div(g, hn::Add(hn::Set(d, 1.f), e)), up.part[p]);
  }
  return out;
}

void swiglu_simd(float* HWY_RESTRICT gate, const float* HWY_RESTRICT up, size_t columns) {
  const size_t whole = columns / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) store(swiglu16(load(gate + i), load(up + i)), gate + i);
  if (whole == columns) return;
  float rest[16];
  store(swiglu16(load_partial(gate + whole, columns - whole), load_partial(up + whole, columns - whole)), rest);
  for (size_t i = whole; i < columns; ++i) gate[i] = rest[i - whole];
}

void add_to_simd(float* HWY_RESTRICT x, const float* HWY_RESTRICT y, size_t columns) {
  for (size_t i = 0; i < columns; ++i) x[i] += y[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(rms_norm_simd);
HWY_EXPORT(swiglu_simd);
HWY_EXPORT(add_to_simd);

void rms_norm(const float* x, const float* weight, float epsilon, size_t columns, float* out) {
  HWY_DYNAMIC_DISPATCH(rms_norm_simd)(x, weight, epsilon, columns, out);
}
void swiglu(float* gate, const float* up, size_t columns) {
  HWY_DYNAMIC_DISPATCH(swiglu_simd)(gate, up, columns);
}
void add_to(float* x, const float* y, size_t columns) {
  HWY_DYNAMIC_DISPATCH(add_to_simd)(x, y, columns);
}

void rms_norm_plain(const float* x, const float* weight, float epsilon, size_t columns, double* out) {
  double squares = 0;
  for (size_t i = 0; i < columns; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double scale = 1 / std::sqrt(squares / static_cast<double>(columns) + epsilon);
  for (size_t i = 0; i < columns; ++i) out[i] = x[i] * scale * weight[i];
}

void swiglu_plain(const float* gate, const float* up, size_t columns, double* out) {
  for (size_t i = 0; i < columns; ++i) {
    const double g = gate[i];
    out[i] = g / (1 + std::exp(-g)) * up[i];
  }
}

}  // namespace contexture
#endif
