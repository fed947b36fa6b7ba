/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The multiboot header, and the first instructions of every guest. */
#include "platform.h"

#define STACK_BYTES 16384

    .section .multiboot, "a"
    .p2align 2
    .long MULTIBOOT_HEADER_MAGIC
    .long MULTIBOOT_HEADER_FLAGS
    .long -(MULTIBOOT_HEADER_MAGIC + MULTIBOOT_HEADER_FLAGS)

    .section .bss.stack, "aw", @nobits
    .p2align 12
    .skip STACK_BYTES
stack_top:

/* The loader enters here: flat 32-bit segments, no paging, no interrupts, EAX the magic, EBX the information. */
    .text
    .globl entry
entry:
    movl $stack_top, %esp
    xorl %ebp, %ebp
    pushl $0
    popfl
    subl $8, %esp          /* keeps the stack 16-byte aligned at the call, as the C ABI has it */
    pushl %ebx
    pushl %eax
    call boot
1:  cli
    hlt
    jmp 1b
