/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cases in 64-bit mode: see case_table.py. Words in capitals that are no symbols are filled in there. */
.set CODE, 0x8000
.set RECORD, 0x7E00
.set CASE, 0x7E04
.set COUNT, 0x7E08
.set MY_IDT, 0x40000
test:
    LONG_MODE
    movl $my_stubs, %eax
    movl $MY_IDT, %edi
    movl $256, %ecx
1:  movw %ax, (%rdi)
    movw $CODE64, 2(%rdi)
    movw $GATE, 4(%rdi)
    movl %eax, %edx
    shrl $16, %edx
    movl %edx, 6(%rdi)
    movw $0, 10(%rdi)
    movl $0, 12(%rdi)
    addl $16, %edi
    addl $16, %eax
    loop 1b
    lidt my_idt_register
    movl $0xC0000100, %ecx
    movl $0x600, %eax
    xorl %edx, %edx
    wrmsr
    movl $0xC0000101, %ecx
    movl $0x700, %eax
    wrmsr
    movl $0x200000, RECORD
    movl $0x140000, CASE
next:
    movl $STACK, %esp
    subl $1, COUNT
    js done
    movl CASE, %esi
    movl $CODE, %edi
    movl $16, %ecx
    rep movsb
    movl $0xCCCCCCCC, %eax
    movl $4, %ecx
    rep stosl
    movl %esi, CASE
    WATCHES
    movl $0x80010019, %eax
    movq %rax, %cr0
    movl $EAX, %eax
    movl $ECX, %ecx
    movl $EDX, %edx
    movl $EBX, %ebx
    movl $EBP, %ebp
    movl $ESI, %esi
    movl $EDI, %edi
    movl $R11, %r11d
    movl $R14, %r14d
    movl $CODE, %r8d
    ENTER
recorded:
    pushq %rax
    movl RECORD, %eax
    addl $128, RECORD
    movl %ecx, 20(%rax)
    movl %edx, 24(%rax)
    movl %ebx, 28(%rax)
    movl %ebp, 32(%rax)
    movq %rbx, 96(%rax)
    movq %r11, 104(%rax)
    movq %rcx, 112(%rax)
    popq %rcx
    movl %ecx, 16(%rax)
    popq %rcx
    movl %ecx, (%rax)
    popq %rcx
    movl %ecx, 4(%rax)
    popq %rcx
    movl %ecx, 8(%rax)
    movq %cr0, %rcx
    movl %ecx, 36(%rax)
    leal 40(%rax), %edi
    SAVE_WATCHES
    jmp next
done: EXIT 1
.balign 16
my_stubs:
.set n, 0
.rept 256
    .balign 16
    .if n == 8 || n == 10 || n == 11 || n == 12 || n == 13 || n == 14 || n == 17
    .else
    pushq $0
    .endif
    .byte 0x68
    .long n
    jmp recorded
    .set n, n + 1
.endr
my_idt_register:
    .word 256 * 16 - 1
    .quad MY_IDT
.code32
