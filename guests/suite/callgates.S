/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where call gates lead to: each copies the top of its stack and returns. */
    .text
    .globl gate_entry, gate_entry_16, inner_entry, jump_entry
/* Without parameters, on the same level. */
gate_entry:
    call copy_stack
    lretl

/* The same for a frame of 16-bit items; the code is at a place below 64 KiB then. */
gate_entry_16:
    movl %esp, %ss:gate_stack
    movl (%esp), %eax
    movl %eax, %ss:gate_items
    lretw

/* From ring 3, with two parameters. */
inner_entry:
    call copy_stack
    movw %ss, gate_stack + 4
    lretl $8

copy_stack:
    pushal
    leal 36(%esp), %esi
    movl %esi, gate_stack
    movl $gate_items, %edi
    movl $8, %ecx
    cld
    rep movsl %ss:(%esi), %es:(%edi)
    popal
    ret

jump_entry:
    movl $1, gate_items
    movw %cs, gate_items + 4
    ljmp *gate_back

/* void jump_gate(word selector): until jump_entry jumps back. */
    .globl jump_gate
jump_gate:
    pushal
    movl 36(%esp), %eax
    movw %ax, gate_pointer + 4
    ljmp *gate_pointer
gate_landing:
    popal
    ret

/* void call_gate(word selector) */
    .globl call_gate, after_call_gate
call_gate:
    pushal
    movl 36(%esp), %eax
    movw %ax, gate_pointer + 4
    lcall *gate_pointer
behind:
    popal
    ret
after_call_gate:
    movl $behind, %eax
    ret

    .data
    .p2align 2
gate_back:
    .long gate_landing
    .word 8, 0

    .bss
    .p2align 2
    .globl gate_items, gate_stack
gate_items: .skip 32
gate_stack: .skip 8
gate_pointer: .skip 8
