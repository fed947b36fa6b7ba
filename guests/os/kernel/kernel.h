/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every part of the kernel may say. */
#ifndef KERNEL_H
#define KERNEL_H

#include "arch.h"

/* To COM1: %s %d %u %x %p %c, a width, 0 to pad with zeros. */
void kprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, unless the command line says `quiet`: what is found at the start, which differs between machines. */
void announce(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The kernel's own mistake: says so and ends the run. */
_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum { PANIC_STATUS = 99 };

/* Ends the run through the debug-exit port; without one, halts. */
_Noreturn void power_off(int status);

/* An argument of the command line, "" for a bare word; null if it is not there. The text is the callee's until the next call. */
const char *argument(const char *key);

/* Up to bytes - 1 characters, and a final zero. */
void strlcpy(char *to, const char *from, size_t bytes);

/* A whole page, at addresses of the direct map. */
void copy_page(void *to, const void *from);
void zero_page(void *at);

extern const char *const system_name; /* os-i386 and so on */

#endif
