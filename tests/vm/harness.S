/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands around a test's own code in a ROM of 64 KiB at F0000: from the reset vector to flat 32-bit protected mode,
 * tables, and handlers for all events that note down what they are given.
 *
 *   1000 GDT   2000 IDT   3000 TSS   4000 notes   7000 stack   10000 page directory   11000 page table (identity, 4 MB)
 *
 * A note is eight words: vector, error code, EIP, CS, EFLAGS, ESP, SS (both 0 without a change of privilege), CR2.
 * After it the handler returns to the address in RESUME with TF clear, or ends the run with 0x7F if that is 0.
 */
.set GDT, 0x1000
.set IDT, 0x2000
.set TSS, 0x3000
.set NO_BITMAP, 0x3000  /* beyond the TSS's limit */
.set NOTES_USED, 0x4000
.set RESUME, 0x4004
.set NOTES, 0x4020
.set STACK, 0x7000
.set USER_STACK, 0x9000
.set DIRECTORY, 0x10000
.set TABLE, 0x11000
.set CODE0, 0x08
.set DATA0, 0x10
.set CODE3, 0x1B
.set DATA3, 0x23
.set TASK, 0x28

.macro EXIT value
    movb $\value, %al
    outb %al, $0xF4
    jmp .
.endm

/* The next event is expected; the run goes on at `label`. */
.macro EXPECT label
    movl $\label, RESUME
.endm

/* Identity mapping of the first 4 MB, everything permitted; CR0.WP on. */
.macro PAGING
    call paging_on
.endm

/* To `label` in ring 3. */
.macro RING3 label, flags=0x2
    movl %esp, TSS + 4
    movw $DATA3, %ax
    movw %ax, %ds
    movw %ax, %es
    pushl $DATA3
    pushl $USER_STACK
    pushl $\flags
    pushl $CODE3
    pushl $\label
    iretl
.endm

.text
.code32
start:
    movw $DATA0, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $STACK, %esp
    cld
    movl $gdt, %esi
    movl $GDT, %edi
    movl $(gdt_end - gdt), %ecx
    rep movsb
    lgdtl gdt_register
    movl $stubs, %eax
    movl $IDT, %edi
    movl $256, %ecx
1:  movw %ax, (%edi)
    movw $CODE0, 2(%edi)
    movw $0x8E00, 4(%edi)
    movl %eax, %edx
    shrl $16, %edx
    movw %dx, 6(%edi)
    addl $8, %edi
    addl $16, %eax
    loop 1b
    lidtl idt_register
    movl $STACK - 0x800, TSS + 4
    movw $DATA0, TSS + 8
    movw $NO_BITMAP, TSS + 102
    movw $TASK, %ax
    ltrw %ax
    movl $NOTES, NOTES_USED
    xorl %eax, %eax
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    xorl %edx, %edx
    xorl %esi, %esi
    xorl %edi, %edi
    xorl %ebp, %ebp
    jmp test

paging_on:
    pushal
    movl $TABLE, %edi
    movl $7, %eax
    movl $1024, %ecx
1:  stosl
    addl $0x1000, %eax
    loop 1b
    movl $TABLE | 7, DIRECTORY
    movl $DIRECTORY, %eax
    movl %eax, %cr3
    movl $0x80010011, %eax
    movl %eax, %cr0
    popal
    ret

noted:  /* on the stack: vector, error code, EIP, CS, EFLAGS and, from ring 3, ESP and SS */
    pushal
    pushl %ds
    pushl %es
    movw $DATA0, %ax
    movw %ax, %ds
    movw %ax, %es
    movl NOTES_USED, %edi
    leal 40(%esp), %esi
    movl $5, %ecx
    cld
    rep movsl %ss:(%esi), %es:(%edi)
    xorl %eax, %eax
    movl %eax, (%edi)
    movl %eax, 4(%edi)
    testb $3, 52(%esp)
    jz 1f
    movl 60(%esp), %eax
    movl %eax, (%edi)
    movl 64(%esp), %eax
    movl %eax, 4(%edi)
1:  movl %cr2, %eax
    movl %eax, 8(%edi)
    addl $12, %edi
    movl %edi, NOTES_USED
    movl RESUME, %eax
    testl %eax, %eax
    jnz 2f
    EXIT 0x7F
2:  movl $0, RESUME
    movl %eax, 48(%esp)
    andl $~0x100, 56(%esp)  /* TF */
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iretl

.balign 16
stubs:
.set n, 0
.rept 256
    .balign 16
    .if n == 8 || n == 10 || n == 11 || n == 12 || n == 13 || n == 14 || n == 17
    .else
    pushl $0
    .endif
    .byte 0x68
    .long n
    jmp noted
    .set n, n + 1
.endr

.balign 8
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00CF93000000FFFF
    .quad 0x00CFFB000000FFFF
    .quad 0x00CFF3000000FFFF
    .quad 0x0000890030002080
    .quad 0x00009B000000FFFF
    .quad 0x000093000000FFFF
gdt_end:
gdt_register:
    .word gdt_end - gdt - 1
    .long GDT
rom_gdt_register:
    .word gdt_end - gdt - 1
    .long gdt
idt_register:
    .word 256 * 8 - 1
    .long IDT

.balign 16
.code32
#include "test.S"

.org 0xFF80
.code16
protected:
    lgdtl %cs:(rom_gdt_register - start)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $CODE0, $start

.org 0xFFF0
#ifdef REAL_MODE
    ljmpw $0xF000, $(test - start)
#else
    jmp protected
#endif
.org 0xFFFF
    .byte 0
