#pragma once

namespace contexture {

/// Throws Error where this processor lacks what the kernels are compiled for: the first of them would be an illegal
/// instruction.
void check_processor();

}  // namespace contexture
