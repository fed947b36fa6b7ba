/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's arguments: words of the form key=value, separated by blanks. */
#ifndef CMDLINE_H
#define CMDLINE_H

#include <stdbool.h>
#include <stdint.h>

/* The string must stay where it is: nothing is copied. */
void cmdline_init(const char *arguments);

/* Is the argument KEY given, and with exactly this value? */
bool cmdline_is(const char *key, const char *value);

/* The number given as KEY=..., decimal or 0x..., or else the default. Anything else ends the guest. */
uint32_t cmdline_number(const char *key, uint32_t otherwise);

/* The text given as KEY=... in a buffer of the callee's that the next call overwrites, or else the default. */
const char *cmdline_text(const char *key, const char *otherwise);

#endif
