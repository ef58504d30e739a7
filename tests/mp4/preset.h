// One of synth_presets by its name.
#pragma once

#include <criterion/criterion.h>

#include "synth.h"

static inline const struct synth_options *preset(const char *name) {
  for (const struct synth_options *o = synth_presets; o->name; o++)
    if (!strcmp(o->name, name))
      return o;
  cr_assert_fail("no preset %s", name);
  return NULL;
}
