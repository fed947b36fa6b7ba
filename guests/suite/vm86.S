/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Into virtual-8086 mode, and the 16-bit code that runs there. */
#include "lib/arch.h"

#define EFLAGS_VM 0x20000

    .text
/* void enter_vm86(word unused): at vm86_segment:vm86_ip, all segments alike, with vm86_flags. */
    .globl enter_vm86
enter_vm86:
    movl vm86_flags, %ecx
    orl $EFLAGS_VM + 2, %ecx
    movl vm86_segment, %eax
    pushl %eax             /* GS, FS, DS, ES, SS */
    pushl %eax
    pushl %eax
    pushl %eax
    pushl %eax
    pushl $0xFFF0          /* SP */
    pushl %ecx
    pushl %eax
    pushl vm86_ip
    iretl

    .section .rodata
    .code16
    .globl vm86_code, vm86_code_end, vm86_int, vm86_sum, vm86_segment_store, vm86_cli, vm86_outside
vm86_code:
vm86_int:
    int $USER_RETURN_VECTOR
vm86_sum:                  /* 1 + 2 + ... + 100, with 16-bit registers and a stack */
    xorw %ax, %ax
    movw $100, %cx
1:  addw %cx, %ax
    pushw %ax
    popw %bx
    loop 1b
    int $USER_RETURN_VECTOR
vm86_segment_store:        /* 3000:0010 */
    movw $0x3000, %ax
    movw %ax, %ds
    movw $0x55AA, 0x10
    int $USER_RETURN_VECTOR
vm86_cli:
    cli
    int $USER_RETURN_VECTOR
vm86_outside:              /* 5000:0004, a page that is not ring 3's */
    movw $0x5000, %ax
    movw %ax, %es
    movw %es:4, %bx
    int $USER_RETURN_VECTOR
vm86_code_end:

    .bss
    .p2align 2
    .globl vm86_segment, vm86_ip, vm86_flags
vm86_segment: .skip 4
vm86_ip: .skip 4
vm86_flags: .skip 4
