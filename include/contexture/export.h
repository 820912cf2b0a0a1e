#pragma once

/// Marks what the library shows: everything else in it is hidden, so that a guest brings no names into its host.
#define CONTEXTURE_API __attribute__((visibility("default")))
/// Of what is shown, a part that is hidden all the same.
#define CONTEXTURE_LOCAL __attribute__((visibility("hidden")))
