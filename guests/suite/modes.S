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

#define ALIAS 0x40000000 /* where the kernel is mapped once more (modes.c) */
#define CR4_PAE 0x20

/*
 * uint64_t toggle_pae(word root, word va): what is at VA under the root with CR4.PAE clear (low half) and set (high
 * half), or all ones if it is not the same again with it clear. Runs at the alias and needs no stack meanwhile.
 */
    .globl toggle_pae
toggle_pae:
    pushl %ebx
    pushl %esi
    pushl %edi
    movl 16(%esp), %ebx
    movl 20(%esp), %esi
    movl %cr3, %edi
    movl $1f + ALIAS, %eax
    jmp *%eax
1:  movl %ebx, %cr3
    movl (%esi), %eax
    movl %cr4, %ecx
    orl $CR4_PAE, %ecx
    movl %ecx, %cr4
    movl (%esi), %edx
    andl $~CR4_PAE, %ecx
    movl %ecx, %cr4
    cmpl %eax, (%esi)
    je 2f
    movl $-1, %eax
    movl $-1, %edx
2:  movl %edi, %cr3
    movl $3f, %ecx
    jmp *%ecx
3:  popl %edi
    popl %esi
    popl %ebx
    ret

    .data
    .p2align 2
far_pointer:
    .long code_64bit
    .word 0
    .word 0
