/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cases in 32-bit and 16-bit protected mode and in virtual-8086 mode: see case_table.py. Words in capitals that are no symbols are filled in there. */
.set CODE, 0x8000
.set RECORD, 0x7E00
.set CASE, 0x7E04
.set COUNT, 0x7E08
.set MY_IDT, 0x40000
test:
    PAGING
    movl $my_stubs, %eax
    movl $MY_IDT, %edi
    movl $256, %ecx
1:  movw %ax, (%edi)
    movw $CODE0, 2(%edi)
    movw $GATE, 4(%edi)
    movl %eax, %edx
    shrl $16, %edx
    movw %dx, 6(%edi)
    addl $8, %edi
    addl $16, %eax
    loop 1b
    lidtl my_idt_register
    movl $based, %esi
    movl $0x41000, %edi
    movl $80, %ecx
    rep movsb
    lgdtl my_gdt_register
    movl $0x200000, RECORD
    movl $0x140000, CASE
next:
    movl $STACK, %esp
    movw $DATA0, %ax
    movw %ax, %ds
    movw %ax, %es
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
    movl %eax, %cr0
    movl $0x20, %eax
    movw %ax, %es
    movl $0x28, %eax
    movw %ax, %fs
    movl $0x30, %eax
    movw %ax, %gs
    movl $EAX, %eax
    movl $ECX, %ecx
    movl $EDX, %edx
    movl $EBX, %ebx
    movl $EBP, %ebp
    movl $ESI, %esi
    movl $EDI, %edi
    ENTER
recorded:
    pushl %eax
    movl RECORD, %eax
    addl $128, RECORD
    movl %ecx, 20(%eax)
    movl %edx, 24(%eax)
    movl %ebx, 28(%eax)
    movl %ebp, 32(%eax)
    popl 16(%eax)
    popl (%eax)
    popl 4(%eax)
    popl 8(%eax)
    movl %cr0, %ecx
    movl %ecx, 36(%eax)
    leal 40(%eax), %edi
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
    pushl $0
    .endif
    .byte 0x68
    .long n
    jmp recorded
    .set n, n + 1
.endr
my_idt_register:
    .word 256 * 8 - 1
    .long MY_IDT
my_gdt_register:
    .word 79
    .long 0x41000
.balign 8
based:
    .quad 0
    .quad 0x00CF9B000000FFFF
    .quad 0x00CF93000000FFFF
    .quad 0x00009B000000FFFF  /* 18: 16-bit code */
    .quad 0x00CF93000800FFFF  /* 20: ES */
    .quad 0x00CF93000600FFFF  /* 28: FS */
    .quad 0x00CF93000700FFFF  /* 30: GS */
    .quad 0x00CFFB000000FFFF  /* 3B: ring 3 */
    .quad 0x00CFF3000000FFFF  /* 43 */
    .quad 0
