/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions that C has no words for. */
#ifndef PROCESSOR_H
#define PROCESSOR_H

#include "arch.h"

static inline word read_cr2(void)
{
    word value;

    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static inline void write_cr3(paddr root)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(root) : "memory");
}

static inline void invlpg(word va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* Until the next interrupt, which is served before this returns. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}

/* Serves the interrupts that wait, if any. */
static inline void take_interrupts(void)
{
    __asm__ volatile("sti\n\tnop\n\tcli" : : : "memory");
}

#endif
