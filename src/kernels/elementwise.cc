#include "kernels/elementwise.h"

#include <cmath>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "hwy/contrib/math/math-inl.h"
#include "kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

void rms_norm_simd(const float* x, const float* HWY_RESTRICT weight, float epsilon, size_t columns, float* out) {
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

/// gelu(gate) · up for 16 lanes, gelu(g) = g · sigmoid(2u), u = sqrt(2/π) · (g + 0.044715 g³): what (1 + tanh u) / 2
/// is.
HWY_INLINE Floats geglu16(const Floats& gate, const Floats& up) {
  const FloatTag d;
  Floats out;
  for (size_t p = 0; p < kParts; ++p) {
    const auto g = gate.part[p];
    const auto cubic = hn::Mul(hn::Mul(g, g), hn::Mul(g, hn::Set(d, 0.044715f)));
    const auto u2 = hn::Mul(hn::Add(g, cubic), hn::Set(d, 1.5957691216057308f));
    const auto e = hn::Exp(d, hn::Min(hn::Neg(u2), hn::Set(d, 87.f)));
    out.part[p] = hn::Mul(hn::Div(g, hn::Add(hn::Set(d, 1.f), e)), up.part[p]);
  }
  return out;
}

/// x = of(x, y) in whole and partial groups of 16.
template <class Of>
HWY_INLINE void apply(float* HWY_RESTRICT x, const float* HWY_RESTRICT y, size_t columns, const Of& of) {
  const size_t whole = columns / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) store(of(load(x + i), load(y + i)), x + i);
  if (whole == columns) return;
  float rest[16];
  store(of(load_partial(x + whole, columns - whole), load_partial(y + whole, columns - whole)), rest);
  for (size_t i = whole; i < columns; ++i) x[i] = rest[i - whole];
}

void swiglu_simd(float* gate, const float* up, size_t columns) {
  apply(gate, up, columns, [](const Floats& g, const Floats& u) HWY_ATTR { return swiglu16(g, u); });
}

void geglu_simd(float* gate, const float* up, size_t columns) {
  apply(gate, up, columns, [](const Floats& g, const Floats& u) HWY_ATTR { return geglu16(g, u); });
}

void softcap_simd(float* x, float cap, size_t columns) {
  for (size_t i = 0; i < columns; i += 16) {
    const size_t count = columns - i;
    if (count >= 16) {
      store(soft_capped(load(x + i), cap), x + i);
      continue;
    }
    float rest[16];
    store(soft_capped(load_partial(x + i, count), cap), rest);
    for (size_t r = 0; r < count; ++r) x[i + r] = rest[r];
  }
}

void add_scaled_simd(float* HWY_RESTRICT x, const float* HWY_RESTRICT y, float scale, size_t columns) {
  for (size_t i = 0; i < columns; ++i) x[i] += scale * y[i];
}

void multiply_by_simd(float* x, float scale, size_t columns) {
  for (size_t i = 0; i < columns; ++i) x[i] *= scale;
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(rms_norm_simd);
HWY_EXPORT(swiglu_simd);
HWY_EXPORT(geglu_simd);
HWY_EXPORT(softcap_simd);
HWY_EXPORT(add_scaled_simd);
HWY_EXPORT(multiply_by_simd);

void rms_norm(const float* x, const float* weight, float epsilon, size_t columns, float* out) {
  HWY_DYNAMIC_DISPATCH(rms_norm_simd)(x, weight, epsilon, columns, out);
}
void swiglu(float* gate, const float* up, size_t columns) {
  HWY_DYNAMIC_DISPATCH(swiglu_simd)(gate, up, columns);
}
void geglu(float* gate, const float* up, size_t columns) {
  HWY_DYNAMIC_DISPATCH(geglu_simd)(gate, up, columns);
}
void softcap(float* x, float cap, size_t columns) {
  HWY_DYNAMIC_DISPATCH(softcap_simd)(x, cap, columns);
}
void add_scaled(float* x, const float* y, float scale, size_t columns) {
  HWY_DYNAMIC_DISPATCH(add_scaled_simd)(x, y, scale, columns);
}
void multiply_by(float* x, float scale, size_t columns) {
  HWY_DYNAMIC_DISPATCH(multiply_by_simd)(x, scale, columns);
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

void geglu_plain(const float* gate, const float* up, size_t columns, double* out) {
  for (size_t i = 0; i < columns; ++i) {
    const double g = gate[i];
    out[i] = 0.5 * g * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g))) * up[i];
  }
}

}  // namespace contexture
#endif
