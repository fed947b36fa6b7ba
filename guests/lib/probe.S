/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Each probe says where to resume, makes its one access, and is done. */

    .bss
    .p2align 2
    .globl probe_resume
probe_resume:
    .skip 4

    .text

/* uint32_t probe_load_raw(uint32_t va) */
    .globl probe_load_raw
probe_load_raw:
    movl 4(%esp), %edx
    movl $1f, probe_resume
    movl (%edx), %eax
1:  movl $0, probe_resume
    ret

/* void probe_store_raw(uint32_t va, uint32_t value) */
    .globl probe_store_raw
probe_store_raw:
    movl 4(%esp), %edx
    movl 8(%esp), %eax
    movl $1f, probe_resume
    movl %eax, (%edx)
1:  movl $0, probe_resume
    ret

/* void probe_call_raw(uint32_t va): the return address is pushed before the fetch faults, so drop it by EBP. */
    .globl probe_call_raw
probe_call_raw:
    pushl %ebp
    movl %esp, %ebp
    movl 8(%ebp), %edx
    movl $1f, probe_resume
    call *%edx
1:  movl %ebp, %esp
    movl $0, probe_resume
    popl %ebp
    ret
