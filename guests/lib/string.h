/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The part of <string.h> that a freestanding compiler does not bring but may call. */
#ifndef STRING_H
#define STRING_H

#include <stddef.h>

void *memset(void *target, int value, size_t count);
void *memcpy(void *restrict target, const void *restrict source, size_t count);
void *memmove(void *target, const void *source, size_t count);
int memcmp(const void *left, const void *right, size_t count);
size_t strlen(const char *text);
int strcmp(const char *left, const char *right);
int strncmp(const char *left, const char *right, size_t count);

#endif
