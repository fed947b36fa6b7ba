/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The string instructions keep the compiler from seeing a loop here that it would replace by a call to the
 * very function it is in.
 */
#include "string.h"

#include <stdint.h>

enum { WORD_BYTES = 4 }; /* a word at a time, since emulated processors take as long for a byte */

void *memset(void *target, int value, size_t count)
{
    void *next = target;
    size_t words = count / WORD_BYTES;

    __asm__ volatile("rep stosl" : "+D"(next), "+c"(words) : "a"((uint8_t)value * 0x01010101u) : "memory");
    count %= WORD_BYTES;
    __asm__ volatile("rep stosb" : "+D"(next), "+c"(count) : "a"(value) : "memory");
    return target;
}

void *memcpy(void *restrict target, const void *restrict source, size_t count)
{
    void *next = target;
    size_t words = count / WORD_BYTES;

    __asm__ volatile("rep movsl" : "+D"(next), "+S"(source), "+c"(words) : : "memory");
    count %= WORD_BYTES;
    __asm__ volatile("rep movsb" : "+D"(next), "+S"(source), "+c"(count) : : "memory");
    return target;
}

static void copy_backwards(void *target, const void *source, size_t count)
{
    uint8_t *to = (uint8_t *)target + count - 1;
    const uint8_t *from = (const uint8_t *)source + count - 1;

    __asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

void *memmove(void *target, const void *source, size_t count)
{
    if ((uintptr_t)target - (uintptr_t)source >= count)
        return memcpy(target, source, count);
    copy_backwards(target, source, count);
    return target;
}

int memcmp(const void *left, const void *right, size_t count)
{
    const uint8_t *a = left;
    const uint8_t *b = right;

    for (; count; count--, a++, b++)
        if (*a != *b)
            return *a - *b;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    return length;
}

int strncmp(const char *left, const char *right, size_t count)
{
    for (; count; count--, left++, right++)
        if (*left != *right || !*left)
            return (unsigned char)*left - (unsigned char)*right;
    return 0;
}

int strcmp(const char *left, const char *right)
{
    return strncmp(left, right, SIZE_MAX);
}
