/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where SYSCALL arrives while ring 3 is traced: back at once, with TF clear. */
#include "lib/arch.h"

    .text
#if PAGING_LEVELS == 4
    .globl step_syscall_entry
step_syscall_entry:
    btrq $8, %r11
    sysretq
#endif
