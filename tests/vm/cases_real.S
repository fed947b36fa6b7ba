/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cases in real mode: see case_table.py. Words in capitals that are no symbols are filled in there. */
.set CODE, 0x8000
.set RECORD, 0x7E00
.set CASE, 0x7E04
.set COUNT, 0x7E08
.code16
.set RSEG, 0x7E0C
test:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    xorw %di, %di
    movw $(my_stubs - start), %ax
    movw $256, %cx
1:  movw %ax, (%di)
    movw $0xF000, 2(%di)
    addw $4, %di
    addw $8, %ax
    loop 1b
    movw $0x2000, RSEG
    movw $0xA000, CASE
next:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    subl $1, COUNT
    js done
    movw CASE, %si
    movw $CODE, %di
    movw $16, %cx
    cld
    rep movsb
    movw $0xCCCC, %ax
    movw $8, %cx
    rep stosw
    movw %si, CASE
    WATCHES
    movl $0x18, %eax
    movl %eax, %cr0
    movw $0x80, %ax
    movw %ax, %es
    movw $0x60, %ax
    movw %ax, %fs
    movw $0x70, %ax
    movw %ax, %gs
    movl $EAX, %eax
    movl $ECX, %ecx
    movl $EDX, %edx
    movl $EBX, %ebx
    movl $EBP, %ebp
    movl $ESI, %esi
    movl $EDI, %edi
    ljmpw $0, $CODE
recorded:
    pushl %eax
    xorw %ax, %ax
    movw %ax, %ds
    movw RSEG, %ax
    movw %ax, %es
    addw $8, RSEG
    popl %es:16
    movl %ecx, %es:20
    movl %edx, %es:24
    movl %ebx, %es:28
    movl %ebp, %es:32
    popw %es:0
    popw %es:8
    movl %cr0, %ecx
    movl %ecx, %es:36
    movw $40, %di
    SAVE_WATCHES
    jmp next
done:
    movb $1, %al
    outb %al, $0xF4
    jmp .
.balign 8
my_stubs:
.set n, 0
.rept 256
    .balign 8
    pushw $n
    jmp recorded
    .set n, n + 1
.endr
.code32
