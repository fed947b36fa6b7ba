/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loops of `bench` whose every instruction counts, and the handlers they go through. */
#include "lib/user.h"

    .text

/* uint32_t fault_loop(uint32_t count, uint32_t va): returns how many of its loads have faulted. */
    .globl fault_loop
fault_loop:
    pushl %ebx
    movl 8(%esp), %ecx
    movl 12(%esp), %edx
    xorl %ebx, %ebx
    jecxz 2f
1:  movl (%edx), %eax      /* two bytes, which fault_skip knows */
    decl %ecx
    jnz 1b
2:  movl %ebx, %eax
    popl %ebx
    ret

/* Interrupt gate of #PF: drops the error code and skips the load. */
    .p2align 4
    .globl fault_skip
fault_skip:
    incl %ebx
    addl $4, %esp
    addl $2, (%esp)
    iretl

/* Interrupt gate of the system call. */
    .p2align 4
    .globl syscall_count
syscall_count:
    incl %ebx
    iretl

/* In ring 3, EDI times; the alignment keeps it within a page. */
    .p2align 6
    .globl ring3_syscall_loop
ring3_syscall_loop:
    xorl %ebx, %ebx
    testl %edi, %edi
    jz 2f
1:  int $0x80
    decl %edi
    jnz 1b
2:  movl %ebx, %eax
    int $USER_RETURN_VECTOR
