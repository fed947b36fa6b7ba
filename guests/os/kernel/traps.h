/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Exceptions, interrupts and system calls: the registers they find, and who handles them. */
#ifndef TRAPS_H
#define TRAPS_H

#include "arch.h"

enum { VECTOR_PAGE_FAULT = 14, VECTOR_IRQ = 0x20, VECTORS = 0x81 };
enum { FAULT_PRESENT = 1, FAULT_WRITE = 2, FAULT_USER = 4, FAULT_FETCH = 16 };

/* As traps.S pushes them; a frame of user code ends the kernel stack of its process. */
struct registers {
#if PAGING_LEVELS == 4
    word r15, r14, r13, r12, r11, r10, r9, r8;
#endif
    word di, si, bp, dx, cx, bx, ax;
    word vector, error;
    word ip, cs, flags;
    word sp, ss; /* with 32 bits only if user code was interrupted */
};

static inline bool from_user(const struct registers *registers)
{
    return (registers->cs & 3) == 3;
}

void traps_init(void);

/* The stack that the processor switches to when user code is interrupted. */
void set_kernel_stack(void *top);

/* Calls the handler at each interrupt of the line, and unmasks it. */
void irq_install(unsigned irq, void (*handler)(void));

/* The way out of a system call and into a new process: loads the registers and returns to user code. */
_Noreturn void enter_user(const struct registers *registers);

/*
 * Copies to or from user memory; false if a page of it is not the program's. The kernel's side must not be user memory.
 * What else uses user memory goes through these.
 */
bool user_copy(void *to, const void *from, size_t bytes);

#endif
