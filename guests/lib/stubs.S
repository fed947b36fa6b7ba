/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From an interrupt gate to C and back: builds and takes apart a struct frame (interrupts.h). */
#include "segments.h"

/* Vectors for which the CPU pushes an error code: 8, 10 to 14, 17, 21, 29, 30. */
#define ERROR_CODE_VECTORS 0x60227D00

    .text

/* 256 stubs of 16 bytes, in the order of their vectors. */
    .p2align 4
    .globl interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .p2align 4
    .if vector >= 32 || !((ERROR_CODE_VECTORS >> (vector & 31)) & 1)
    pushl $0
    .endif
    pushl $vector
    jmp save_frame
    .set vector, vector + 1
    .endr

    .p2align 4
save_frame:
    pushal
    pushl %ds
    pushl %es
    pushl %fs
    pushl %gs
    movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    cld
    movl %esp, %eax
    movl %esp, %ebp
    andl $-16, %esp        /* the C ABI's alignment; EBP keeps the frame's address */
    subl $12, %esp
    pushl %eax
    call dispatch_interrupt
    movl %ebp, %esp

restore_frame:
    popl %gs
    popl %fs
    popl %es
    popl %ds
    popal
    addl $8, %esp          /* vector and error code */
    iretl

/* void resume_frame(const struct frame *frame) */
    .globl resume_frame
resume_frame:
    movl 4(%esp), %esp
    jmp restore_frame
