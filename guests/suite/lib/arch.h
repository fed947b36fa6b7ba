/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each guest is built up to three times, with PAGING_LEVELS 2 (32-bit paging), 3 (PAE) and 4 (long mode): what differs
 * between them is here. Selectors are the same everywhere, in the order that SYSCALL, SYSRET, SYSENTER and SYSEXIT want.
 */
#ifndef ARCH_H
#define ARCH_H

#define KERNEL_CODE 0x08   /* 64-bit in long mode */
#define KERNEL_DATA 0x10
#define USER_CODE32 0x1B
#define USER_DATA 0x23
#define USER_CODE64 0x2B
#define KERNEL_CODE32 0x30
#define TASK_STATE 0x38    /* two slots in long mode */
#define SPARE_SELECTOR 0x48 /* for the guests' own descriptors, to the end of the table */
#define GDT_SLOTS 16

#define USER_RETURN_VECTOR 0x81

#if PAGING_LEVELS == 4
#define USER_CODE USER_CODE64
#else
#define USER_CODE USER_CODE32
#endif

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uintptr_t word; /* a general register */
#endif

#endif
