#pragma once

#include <cstddef>

namespace contexture {

/// out = x / sqrt(mean(x²) + epsilon) · weight (RMSNorm, arXiv:1910.07467). All (columns); out is not x.
void rms_norm(const float* x, const float* weight, float epsilon, size_t columns, float* out);

/// gate = silu(gate) · up, silu(g) = g / (1 + exp(-g)) (SwiGLU, arXiv:2002.05202). Both (columns).
void swiglu(float* gate, const float* up, size_t columns);

/// x += y.
void add_to(float* x, const float* y, size_t columns);

/// The same in float64, written plainly: the oracles.
void rms_norm_plain(const float* x, const float* weight, float epsilon, size_t columns, double* out);
void swiglu_plain(const float* gate, const float* up, size_t columns, double* out);

}  // namespace contexture
