/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kernel in low memory, where real-mode code has to lie: from its address in guests.toml on, with zeros behind it. It looks at what
 * the loader left: the multiboot information may lie in none of it.
 */
#include "../lib/platform.h"

#define HEADER_FLAGS 0x10000 /* with the address fields */
#define ZEROS_END 0xA000     /* beyond 9000, where the information would be otherwise */
#define INFO_FLAGS 0
#define INFO_COMMAND_LINE 16
#define INFO_MEMORY_MAP 48
#define HAS_COMMAND_LINE_AND_MAP 0x44
#define LINE_STATUS (COM1_PORT + 5)
#define LINE_EMPTY 0x20
#define EXIT_PORT 0xF4

        .text
        .p2align 2
        .globl _start
_start:
image:
header: .long   MULTIBOOT_HEADER_MAGIC
        .long   HEADER_FLAGS
        .long   -(MULTIBOOT_HEADER_MAGIC + HEADER_FLAGS)
        .long   header
        .long   image
        .long   image_end
        .long   ZEROS_END
        .long   entry

entry:  cld
        movl    $ZEROS_END, %esp
        movl    $image_end, %edi
        movl    $ZEROS_END, %ecx
        subl    %edi, %ecx
        xorl    %eax, %eax
        repe    scasb
        sete    %al
        movl    $zeros, %esi
        call    report

        movl    INFO_FLAGS(%ebx), %eax
        andl    $HAS_COMMAND_LINE_AND_MAP, %eax
        cmpl    $HAS_COMMAND_LINE_AND_MAP, %eax
        jne     1f
        movl    %ebx, %eax
        call    is_elsewhere
        jc      1f
        movl    INFO_COMMAND_LINE(%ebx), %eax
        call    is_elsewhere
        jc      1f
        movl    INFO_MEMORY_MAP(%ebx), %eax
        call    is_elsewhere
1:      setnc   %al
        movl    $information, %esi
        call    report

        movl    $total, %esi
        call    print
        movb    failed, %al
        outb    %al, $EXIT_PORT
2:      cli
        hlt
        jmp     2b

/* Carry: the address in EAX is one of ours. */
is_elsewhere:
        cmpl    $ZEROS_END, %eax
        jae     1f
        cmpl    $image, %eax
        cmc
        ret
1:      clc
        ret

/* PASS with the name at ESI if AL is 1, else FAIL. */
report: pushl   %esi
        movl    $pass, %esi
        testb   %al, %al
        jnz     1f
        movl    $fail, %esi
        movb    $1, failed
        decb    total
        incb    total_failed
1:      call    print
        popl    %esi

/* Prints the text at ESI. */
print:  movw    $LINE_STATUS, %dx
1:      inb     %dx, %al
        testb   $LINE_EMPTY, %al
        jz      1b
        lodsb
        testb   %al, %al
        jz      2f
        movw    $COM1_PORT, %dx
        outb    %al, %dx
        jmp     print
2:      ret

pass:   .asciz  "PASS "
fail:   .asciz  "FAIL "
zeros:  .asciz  "low.zeros-behind-the-image\n"
information: .asciz "low.information-elsewhere\n"
total:  .byte   '2'
        .ascii  " passed, "
total_failed: .asciz "0 failed, 0 skipped\n"
failed: .byte   0
        .p2align 4
image_end:
