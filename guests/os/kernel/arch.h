/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between the three builds: PAGING_LEVELS is 2 (32-bit paging), 3 (PAE) or 4 (long mode).
 *
 *     KERNEL_BASE + p    physical address p, up to DIRECT_BYTES, in large pages; the kernel itself is linked there
 *     USER_END           programs, their heap, mappings and stack lie below
 */
#ifndef ARCH_H
#define ARCH_H

#define PAGE_SHIFT 12
#define PAGE_BYTES 4096
#define DIRECT_BYTES 0x30000000 /* 768 MiB: what fits between KERNEL_BASE and the end with 32 bits, less room for nothing else */
#define USER_END 0xC0000000
#define USER_IMAGE 0x00400000
#define USER_STACK_TOP 0xBFFFE000
#define USER_STACK_BYTES 0x100000
#define USER_MAPPINGS 0x60000000

#if PAGING_LEVELS == 4
#define KERNEL_BASE 0xFFFFFFFF80000000
#else
#define KERNEL_BASE 0xC0000000
#endif

/* Selectors, in the order of the GDT. */
#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE 0x1B
#define USER_DATA 0x23
#define TASK_STATE 0x28

#define KERNEL_STACK_BYTES 8192

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uintptr_t word;  /* a general register */
typedef uintptr_t paddr; /* a physical address; 0 is none */
#if PAGING_LEVELS == 2
typedef uint32_t pte;
#else
typedef uint64_t pte;
#endif

static inline void *direct(paddr at)
{
    return (void *)(at + KERNEL_BASE);
}

static inline paddr physical(const void *at)
{
    return (paddr)at - KERNEL_BASE;
}
#endif

#endif
