/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where SYSENTER arrives: notes what the CPU did, and goes back to ECX (stack) and EDX (address). */
    .bss
    .p2align 3
    .globl seen_cs, seen_ss, seen_sp, seen_flags
seen_cs: .skip 8
seen_ss: .skip 8
seen_sp: .skip 8
seen_flags: .skip 8

    .text
    .globl sysenter_entry
sysenter_entry:
#if PAGING_LEVELS == 4
    movq %rsp, seen_sp
    pushfq
    popq seen_flags
#else
    movl %esp, seen_sp
    pushfl
    popl seen_flags
#endif
    movl %cs, %eax
    movl %eax, seen_cs
    movl %ss, %eax
    movl %eax, seen_ss
    movl %esi, %ecx
    movl %ebp, %edx
    sysexit
