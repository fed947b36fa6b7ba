/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A boot sector around a test's calls (calls.inc). REPORT prints carry, AX, BX, CX and DX on COM1. See test_boot_disk.py. */
.macro REPORT
        call    report
.endm

        .code16
        .globl _start
_start: cld
#include "calls.inc"
        xorl    %eax, %eax
        movb    $0x10, %al
        outb    %al, $0xf4
        jmp     .

report: pushw   %dx
        pushw   %cx
        pushw   %bx
        pushw   %ax
        movw    $0, %ax
        adcw    $0, %ax
        call    print_word
        movw    $4, %si
1:      popw    %ax
        call    print_word
        decw    %si
        jnz     1b
        movb    $'\n', %al
        movw    $0x3f8, %dx
        outb    %al, %dx
        ret

print_word:
        movw    %ax, %bx
        movw    $4, %cx
        movw    $0x3f8, %dx
1:      rolw    $4, %bx
        movb    %bl, %al
        andb    $15, %al
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     2f
        addb    $39, %al
2:      outb    %al, %dx
        loop    1b
        movb    $' ', %al
        outb    %al, %dx
        ret

        .org    510
        .word   0xaa55
