/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A program's first instructions: the stack has argc, then argv. */
    .text
    .globl start
start:
#if PAGING_LEVELS == 4
    movq (%rsp), %rdi
    leaq 8(%rsp), %rsi
    call main
    movq %rax, %rbx
#else
    movl (%esp), %eax
    leal 4(%esp), %edx
    subl $4, %esp
    pushl %edx
    pushl %eax
    call main
    movl %eax, %ebx
#endif
    movl $1, %eax
    int $0x80
    ud2
