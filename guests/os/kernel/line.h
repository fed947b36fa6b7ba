/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A line that is typed on a terminal: shown, edited, and remembered. */
#ifndef LINE_H
#define LINE_H

#include <stdbool.h>

enum { LINE_BYTES = 256 };

/* What is typed, with its line feed once it is entered; not terminated. */
extern char line_text[LINE_BYTES];
extern unsigned line_length;

/* Takes a character; whether the line is complete: by Enter, or by control D without a line feed. */
bool line_take(char c);
/* Forgets what was typed, for the next line. */
void line_clear(void);

#endif
