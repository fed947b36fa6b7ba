/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Formatted output to COM1. */
#ifndef PRINT_H
#define PRINT_H

#include <stdarg.h>

/* Knows %c %s %d %u %x %%, a width, and 0 to pad with zeros: "%08x". */
void kprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void kvprintf(const char *format, va_list arguments);

#endif
