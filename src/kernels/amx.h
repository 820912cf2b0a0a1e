#pragma once

namespace contexture {

/// Whether this machine has AMX for int8 and the system lets this process use it; asked for with the first call.
bool amx_may_be_used();

/// From now on it may not: to measure what a lesser machine would give.
void disable_amx();

}  // namespace contexture
