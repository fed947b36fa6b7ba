/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flat segments, and the task state segment that tells the CPU where the kernel's stack is. */
#ifndef SEGMENTS_H
#define SEGMENTS_H

#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE 0x1B /* ring 3 in the low two bits */
#define USER_DATA 0x23
#define TASK_STATE 0x28

#ifndef __ASSEMBLER__
#include <stdint.h>

void segments_init(void);

/* The stack on which interrupts from ring 3 arrive. */
void set_kernel_stack(uint32_t esp);
#endif

#endif
