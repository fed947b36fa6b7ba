/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands around a test's own code in a ROM of 64 KiB at F0000: from the reset vector to flat 32-bit protected mode,
 * tables, and handlers for all events that note down what they are given.
 *
 *   1000 GDT   2000 IDT   3000 TSS   4000 notes   7000 stack   10000 page directory   11000 page table (identity, 4 MB)
 *   20000 PML4   21000 directory pointers   22000 directory   23000, 24000 page tables (identity, 4 MB): PAE and long mode
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
.set PML4, 0x20000
.set POINTERS, 0x21000
.set WIDE_DIRECTORY, 0x22000
.set WIDE_TABLE, 0x23000
.set CODE0, 0x08
.set DATA0, 0x10
.set CODE3, 0x1B
.set DATA3, 0x23
.set TASK, 0x28
.set CODE64, 0x40
.set DATA64_3, 0x4B
.set CODE64_3, 0x53
.set TASK64, 0x58

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

/* The same with PAE tables; NX if asked for. */
.macro PAE_PAGING nx=0
    movl $\nx, %eax
    call pae_paging_on
.endm

/* To 64-bit code behind the macro: the same identity mapping with four levels, NX on, an IDT of 64-bit gates. */
.macro LONG_MODE
    call long_mode_on
    ljmpl $CODE64, $1f
.code64
1:
.endm

/* To `label` in ring 3, 64-bit. */
.macro RING3_64 label, flags=0x2
    movq %rsp, TSS + 4
    pushq $DATA64_3
    pushq $USER_STACK
    pushq $\flags
    pushq $CODE64_3
    pushq $\label
    iretq
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

/* Identity mapping of 4 MB by two page tables, everything permitted. Destroys EAX, ECX, EDI. */
wide_tables:
    movl $WIDE_TABLE, %edi
    movl $7, %eax
    movl $1024, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $8, %edi
    addl $0x1000, %eax
    loop 1b
    movl $WIDE_TABLE | 7, WIDE_DIRECTORY
    movl $WIDE_TABLE + 0x1007, WIDE_DIRECTORY + 8
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    ret

pae_paging_on:
    pushal
    testl %eax, %eax
    jz 1f
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x800, %eax
    wrmsr
1:  call wide_tables
    movl $WIDE_DIRECTORY | 1, POINTERS
    movl $POINTERS, %eax
    movl %eax, %cr3
    movl $0x80010011, %eax
    movl %eax, %cr0
    popal
    ret

long_mode_on:
    pushal
    call wide_tables
    movl $WIDE_DIRECTORY | 7, POINTERS
    movl $POINTERS | 7, PML4
    movl $stubs64, %eax
    movl $IDT, %edi
    movl $256, %ecx
1:  movw %ax, (%edi)
    movw $CODE64, 2(%edi)
    movw $0x8E00, 4(%edi)
    movl %eax, %edx
    shrl $16, %edx
    movw %dx, 6(%edi)
    movl $0, 8(%edi)
    movl $0, 12(%edi)
    addl $16, %edi
    addl $16, %eax
    loop 1b
    movl $PML4, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl $0x80010011, %eax
    movl %eax, %cr0
    lidtl wide_idt_register
    movl $STACK - 0x800, TSS + 4
    movl $0, TSS + 8
    movb $0x89, GDT + TASK64 + 5  /* not busy, if this is not the first time */
    movw $TASK64, %ax
    ltrw %ax
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

.code64
noted64:  /* on the stack: vector, error code, RIP, CS, RFLAGS, RSP, SS; noted as in the other modes, lower halves */
    pushq %rax
    pushq %rdi
    movl NOTES_USED, %edi
    movl 16(%rsp), %eax
    movl %eax, (%rdi)
    movl 24(%rsp), %eax
    movl %eax, 4(%rdi)
    movl 32(%rsp), %eax
    movl %eax, 8(%rdi)
    movl 40(%rsp), %eax
    movl %eax, 12(%rdi)
    movl 48(%rsp), %eax
    movl %eax, 16(%rdi)
    movl 56(%rsp), %eax
    movl %eax, 20(%rdi)
    movl 64(%rsp), %eax
    movl %eax, 24(%rdi)
    movq %cr2, %rax
    movl %eax, 28(%rdi)
    addl $32, %edi
    movl %edi, NOTES_USED
    movl RESUME, %eax
    testl %eax, %eax
    jnz 2f
    EXIT 0x7F
2:  movl $0, RESUME
    movq %rax, 32(%rsp)
    andl $~0x100, 48(%rsp)  /* TF */
    popq %rdi
    popq %rax
    addq $16, %rsp
    iretq

.balign 16
stubs64:
.set n, 0
.rept 256
    .balign 16
    .if n == 8 || n == 10 || n == 11 || n == 12 || n == 13 || n == 14 || n == 17
    .else
    pushq $0
    .endif
    .byte 0x68
    .long n
    jmp noted64
    .set n, n + 1
.endr
.code32

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
    .quad 0x00AF9B000000FFFF  /* CODE64 */
    .quad 0x00CFF3000000FFFF  /* DATA64_3: what SYSRET takes, 8 below the code */
    .quad 0x00AFFB000000FFFF  /* CODE64_3 */
    .quad 0x0000890030002080  /* TASK64 */
    .quad 0
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
wide_idt_register:
    .word 256 * 16 - 1
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
