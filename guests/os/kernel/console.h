/* SPDX-License-Identifier: GPL-2.0-or-later */
/* COM1 as a terminal: output, and input by lines. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "arch.h"

/* From now on input comes by interrupt. */
void console_init(void);
void console_write(const char *text, size_t bytes);

/* A line or the part of it that fits; 0 at the end of input (control D). Sleeps until there is one; -EAGAIN if the caller is to die. */
intptr_t console_read(char *text, size_t bytes);

/* The process that control C ends, with all that descend from it; 0: none. */
void console_set_foreground(int pid);

#endif
