/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 64-bit code for the 32-bit build: called by far call from compatibility mode, and back. */
#include "lib/arch.h"

    .text
/* uint32_t run_64bit(uint32_t selector): bits 8 to 39 of a 64-bit register, which only 64-bit code has. */
    .globl run_64bit
run_64bit:
    movl 4(%esp), %eax
    movl %eax, far_pointer + 4
    lcall *far_pointer
    ret

/* MOVABS RAX, 0x1122334455667788; SHR RAX, 8; RETF: assembled by hand, since this file is 32-bit code. */
code_64bit:
    .byte 0x48, 0xB8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11
    .byte 0x48, 0xC1, 0xE8, 0x08
    .byte 0xCB

    .data
    .p2align 2
far_pointer:
    .long code_64bit
    .word 0
    .word 0
