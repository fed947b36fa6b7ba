/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel of `processes` and its ring 3 programs agree on. */
#ifndef PROCESSES_H
#define PROCESSES_H

#include <stdint.h>

/* A process's own memory: the same addresses in each, other frames. kernel.ld puts the code at 0x40000000. */
enum {
    PROCESS_DATA_VA = 0x50000000,
    PROCESS_DATA_PAGES = 16,
    PROCESS_STACK_VA = 0x60000000,
    PROCESS_STACK_PAGES = 2,
};

/* System calls: INT SYSCALL_VECTOR, number in EAX, arguments in EBX and ECX, result in EAX. */
enum { SYSCALL_VECTOR = 0x80 };

enum {
    SYS_WRITE = 1,       /* EBX: text, ECX: bytes; returns the bytes written, or SYS_BAD_ADDRESS */
    SYS_EXIT = 2,        /* EBX: the result to report */
    SYS_YIELD = 3,
    SYS_GETPID = 4,
    SYS_TICKS = 5,       /* timer ticks since start */
    SYS_PREEMPTIONS = 6, /* how often the timer took the CPU from the caller */
};

#define SYS_BAD_ADDRESS 0xFFFFFFFFu
#define SYS_UNKNOWN 0xFFFFFFFEu

/* The programs, in processes_user.c. */
_Noreturn void program_a(void);
_Noreturn void program_b(void);
_Noreturn void program_c(void);
_Noreturn void program_d(void);

#endif
