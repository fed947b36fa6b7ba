/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "segments.h"
#include "user.h"

#define EFLAGS_RESERVED 0x2 /* always one; IF clear */

    .bss
    .p2align 2
kernel_esp:
    .skip 4

    .text

/* uint32_t user_call(uint32_t eip, uint32_t esp, uint32_t argument) */
    .globl user_call
user_call:
    pushl %ebp
    pushl %ebx
    pushl %esi
    pushl %edi
    movl 20(%esp), %ebx
    movl 24(%esp), %esi
    movl 28(%esp), %edi
    movl %esp, kernel_esp
    pushl %esp             /* interrupts from ring 3 continue on this stack */
    call set_kernel_stack
    movl $USER_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    pushl $USER_DATA
    pushl %esi
    pushl $EFLAGS_RESERVED
    pushl $USER_CODE
    pushl %ebx
    iretl

    .globl user_return
user_return:
    movl $KERNEL_DATA, %edx
    movl %edx, %ds
    movl %edx, %es
    movl kernel_esp, %esp
    popl %edi
    popl %esi
    popl %ebx
    popl %ebp
    ret
