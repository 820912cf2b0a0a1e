#pragma once

#include <cstddef>

namespace contexture {

/// out = x / sqrt(mean(x²) + epsilon) · weight (RMSNorm, arXiv:1910.07467). All (columns); out may be x.
void rms_norm(const float* x, const float* weight, float epsilon, size_t columns, float* out);

/// gate = silu(gate) · up, silu(g) = g / (1 + exp(-g)) (SwiGLU, arXiv:2002.05202). Both (columns).
void swiglu(float* gate, const float* up, size_t columns);

/// gate = gelu(gate) · up (GEGLU, the same paper), gelu by its tanh approximation (arXiv:1606.08415), which models were
/// trained with. Both (columns).
void geglu(float* gate, const float* up, size_t columns);

/// x = cap · tanh(x / cap) (Gemma 2, arXiv:2408.00118).
void softcap(float* x, float cap, size_t columns);

/// x += scale · y.
void add_scaled(float* x, const float* y, float scale, size_t columns);

/// x *= scale.
void multiply_by(float* x, float scale, size_t columns);

/// The same in float64, written plainly: the oracles.
void rms_norm_plain(const float* x, const float* weight, float epsilon, size_t columns, double* out);
void swiglu_plain(const float* gate, const float* up, size_t columns, double* out);
void geglu_plain(const float* gate, const float* up, size_t columns, double* out);

}  // namespace contexture
