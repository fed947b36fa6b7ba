/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Port input and output, of many words too. */
#ifndef IO_H
#define IO_H

#include "../../lib/ports.h"

static inline void ins_words(uint16_t port, void *to, uint32_t count)
{
    __asm__ volatile("rep insw" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

static inline void outs_words(uint16_t port, const void *from, uint32_t count)
{
    __asm__ volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

#endif
