/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fixed-width types, port access and byte order. */
#ifndef FIRMWARE_IO_H
#define FIRMWARE_IO_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

_Static_assert(sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(void *) == 4, "built for i386");

static inline u8 in8(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void out8(u16 port, u8 value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out16(u16 port, u16 value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

/* A device may read memory when it is written to, so memory must be up to date: hence the clobber. */
static inline void out32(u16 port, u32 value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u32 big_endian_32(u32 value)
{
    return __builtin_bswap32(value);
}

static inline u16 big_endian_16(u16 value)
{
    return __builtin_bswap16(value);
}

#endif
