/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The multiboot header, the first instructions, and in long mode the way there. */
#include "../../lib/platform.h"
#include "arch.h"

#define STACK_BYTES 32768
#define HEADER_FLAGS (MULTIBOOT_HEADER_FLAGS + 0x10000) /* with the address fields */

    .section .multiboot, "a"
    .p2align 2
header:
    .long MULTIBOOT_HEADER_MAGIC
    .long HEADER_FLAGS
    .long -(MULTIBOOT_HEADER_MAGIC + HEADER_FLAGS)
    .long header
    .long image_start
    .long load_end
    .long image_end
    .long entry

    .section .bss.stack, "aw", @nobits
    .p2align 12
    .skip STACK_BYTES
stack_top:

    .text
    .code32
    .globl entry
entry:
    movl $stack_top, %esp
    pushl $0
    popfl
    xorl %ebp, %ebp
    movl %ebx, %edi

#if PAGING_LEVELS == 4
/* The first GiB at its own address, in 2 MiB pages. */
    movl $boot_pointers + 0x3, boot_root
    movl $boot_directory + 0x3, boot_pointers
    movl $0x83, %eax
    xorl %ecx, %ecx
1:  movl %eax, boot_directory(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 1b
    movl %cr4, %eax
    orl $0x20, %eax         /* PAE */
    movl %eax, %cr4
    movl $boot_root, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx  /* EFER */
    rdmsr
    orl $0x100, %eax        /* LME */
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $KERNEL_CODE, $2f
    .code64
2:  movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %edi, %edi
    call suite_start
3:  cli
    hlt
    jmp 3b

    .section .data
    .p2align 3
boot_gdt:
    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt

    .section .bss.boot, "aw", @nobits
    .p2align 12
boot_root: .skip 4096
boot_pointers: .skip 4096
boot_directory: .skip 4096
#else
    subl $12, %esp
    pushl %edi
    call suite_start
3:  cli
    hlt
    jmp 3b
#endif
