/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where SYSCALL arrives: notes what the CPU did, and goes back. No stack is to be trusted here. */
    .bss
    .p2align 3
    .globl seen_rcx, seen_r11, seen_cs, seen_ss, seen_flags, syscall_stack, seen_sp
seen_rcx: .skip 8
seen_r11: .skip 8
seen_cs: .skip 8
seen_ss: .skip 8
seen_flags: .skip 8
seen_sp: .skip 8
    .skip 64
syscall_stack:

    .text
    .globl syscall_entry
syscall_entry:
    movq %rcx, seen_rcx
    movq %r11, seen_r11
    movq %rsp, seen_sp
    movq %cs, %rax
    movq %rax, seen_cs
    movq %ss, %rax
    movq %rax, seen_ss
    movq $syscall_stack, %rsp
    pushfq
    popq seen_flags
    movq seen_sp, %rsp
    sysretq

    .globl syscall_entry_compat
syscall_entry_compat:
    movq %rcx, seen_rcx
    movq %r11, seen_r11
    movq %cs, %rax
    movq %rax, seen_cs
    sysretl
