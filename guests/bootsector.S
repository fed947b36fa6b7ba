/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A boot sector: prints the memory map of INT 15h E820h, turns protection on, and ends through port F4 from 32-bit code. */
#define BIOS_TELETYPE 0x0e
#define SMAP 0x534d4150
#define REGION_BYTES 20
#define CR0_PE 1
#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define PORT_EXIT 0xf4

        .code16
        .globl _start
_start: movw    $title, %si
        call    print
        xorl    %ebx, %ebx
next:   movl    $0xe820, %eax
        movl    $SMAP, %edx
        movl    $REGION_BYTES, %ecx
        movw    $region, %di
        int     $0x15
        jc      protect
        movl    region, %eax
        call    print_number
        movl    region + 8, %eax
        call    print_number
        movl    region + 16, %eax
        call    print_number
        movw    $line_end, %si
        call    print
        testl   %ebx, %ebx
        jnz     next

protect:
        cli
        lgdtl   gdt_pointer
        movl    %cr0, %eax
        orl     $CR0_PE, %eax
        movl    %eax, %cr0
        ljmpl   $SELECTOR_CODE, $protected
        .code32
protected:
        movl    $SELECTOR_DATA, %eax
        movw    %ax, %ds
        xorl    %eax, %eax
        outb    %al, $PORT_EXIT
        jmp     .

        .code16
/* Prints the text at SI. */
print:  lodsb
        testb   %al, %al
        jz      1f
        movb    $BIOS_TELETYPE, %ah
        pushl   %ebx
        xorw    %bx, %bx
        int     $0x10
        popl    %ebx
        jmp     print
1:      ret

/* Prints EAX in hexadecimal and a space. */
print_number:
        movl    %eax, %edx
        movw    $8, %cx
1:      roll    $4, %edx
        movb    %dl, %al
        andb    $15, %al
        cmpb    $10, %al
        sbbb    $0x69, %al /* with DAS the shortest way to a digit */
        das
        movb    $BIOS_TELETYPE, %ah
        pushl   %ebx
        xorw    %bx, %bx
        int     $0x10
        popl    %ebx
        loop    1b
        movb    $' ', %al
        movb    $BIOS_TELETYPE, %ah
        int     $0x10
        ret

title:  .asciz  "base     length   type\r\n"
line_end: .asciz "\r\n"
        .balign 8
gdt:    .quad   0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
        .set    region, 0x7e00
        .org    510
        .word   0xaa55
