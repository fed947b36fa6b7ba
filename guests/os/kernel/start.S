/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The multiboot header and the way to KERNEL_BASE: the first page tables map physical memory at its own address and at KERNEL_BASE, in large
 * pages, global, accessed and dirty, so that no processor and no VMM ever has to set those bits.
 */
#include "../../lib/platform.h"
#include "arch.h"

#define HEADER_FLAGS (MULTIBOOT_HEADER_FLAGS + 0x10000) /* with the address fields */
#define LARGE 0x1E3 /* present, writable, accessed, dirty, large, global */
#define TABLE 0x27  /* present, writable, user, accessed */
#define BOOT_CR4_PSE 0x10
#define BOOT_CR4_PAE 0x20
#define BOOT_CR4_PGE 0x80
#define BOOT_CR0 0x80010000 /* paging, and the supervisor too obeys read-only */

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

#define LOW(symbol) (symbol - KERNEL_BASE)

    .section .boot, "ax"
    .code32
    .globl entry
entry:
    cli
    cld
    movl %ebx, %edi
    movl $LOW(boot_directory), %ebx
    movl $LARGE, %eax
    xorl %ecx, %ecx
#if PAGING_LEVELS == 2
1:  movl %eax, (%ebx, %ecx, 4)
    movl %eax, 4 * (KERNEL_BASE >> 22)(%ebx, %ecx, 4)
    addl $0x400000, %eax
    incl %ecx
    cmpl $(DIRECT_BYTES >> 22), %ecx
    jne 1b
    movl $BOOT_CR4_PSE | BOOT_CR4_PGE, %eax
    movl %ebx, %edx
#else
1:  movl %eax, (%ebx, %ecx, 8)
    movl $0, 4(%ebx, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $(DIRECT_BYTES >> 21), %ecx
    jne 1b
    movl $BOOT_CR4_PAE | BOOT_CR4_PGE, %eax
    movl $LOW(boot_pointers), %edx
#if PAGING_LEVELS == 3
    leal 1(%ebx), %ecx          /* pointers have no rights */
    movl %ecx, (%edx)
    movl %ecx, 24(%edx)
#else
    leal TABLE(%ebx), %ecx
    movl %ecx, (%edx)
    movl %ecx, 8 * 510(%edx)
    leal TABLE(%edx), %ecx
    movl $LOW(kernel_root), %edx
    movl %ecx, (%edx)
    movl %ecx, 8 * 511(%edx)
#endif
#endif
    movl %eax, %cr4
    movl %edx, %cr3
#if PAGING_LEVELS == 4
    movl $0xC0000080, %ecx      /* EFER */
    rdmsr
    orl $0x100, %eax            /* LME */
    wrmsr
#endif
    movl %cr0, %eax
    orl $BOOT_CR0, %eax
    movl %eax, %cr0
#if PAGING_LEVELS == 4
    lgdt boot_gdt_pointer
    ljmp $KERNEL_CODE, $2f
    .code64
2:  xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movabsq $3f, %rax
    jmp *%rax
#else
    movl $3f, %eax
    jmp *%eax
#endif

    .p2align 3
boot_gdt:
    .quad 0, 0x00AF9B000000FFFF
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt

    .text
3:
#if PAGING_LEVELS == 4
    movq $boot_stack_top, %rsp
    movl %edi, %edi
    xorl %ebp, %ebp
    call kernel_main
#else
    movl $boot_stack_top, %esp
    xorl %ebp, %ebp
    pushl %edi
    call kernel_main
#endif

    .section .bss.boot, "aw", @nobits
    .p2align 12
#if PAGING_LEVELS == 2
    .globl kernel_root
kernel_root:
boot_directory: .skip 4096
#else
boot_directory: .skip 4096
    .globl boot_pointers
boot_pointers: .skip 4096
#if PAGING_LEVELS == 3
    .globl kernel_root
    .set kernel_root, boot_pointers
#else
    .globl kernel_root
kernel_root: .skip 4096
#endif
#endif
    .globl boot_stack, boot_stack_top
boot_stack: .skip KERNEL_STACK_BYTES
boot_stack_top:
