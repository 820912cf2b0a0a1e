#pragma once

#include "engine/convert.h"
#include "files/model_file.h"

namespace contexture {

/// Throws Error where writing task.out would destroy something: a file that the conversion of `in` reads, by whatever
/// name or link; or, unless task.force, a file that is no GGUF model (an empty one may go).
void check_convert_target(const ConvertTask& task, const ModelFile& in);

}  // namespace contexture
