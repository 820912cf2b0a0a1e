#pragma once

/// Contexture for programs (docs/library.md): a Model is opened once and shared; an Engine runs it; a Request becomes a
/// Stream of events. Everything here throws contexture::Error where the work cannot be done.

#include "contexture/conversation.h"
#include "contexture/engine.h"
#include "contexture/error.h"
#include "contexture/export.h"
#include "contexture/generation.h"
#include "contexture/log.h"
#include "contexture/machine.h"
#include "contexture/model.h"
#include "contexture/options.h"
#include "contexture/sampling.h"
