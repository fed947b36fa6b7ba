/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bodies of tasks, each of which ends a turn with IRET and goes on behind it in the next. */
    .text
    .globl counting_task, reading_task, double_fault_task
counting_task:
    incl task_turns
    iretl
    jmp counting_task

reading_task:
    movl (%edi), %eax
    movl %eax, task_seen
    iretl
    jmp reading_task

/* The error code is on the stack. The task that lost its stack goes on where the C code says. */
double_fault_task:
    popl task_seen
    incl task_turns
    movl $land, task_state + 32
    iretl
    jmp double_fault_task

/* void call_task(word selector) */
    .globl call_task
call_task:
    pushl %ebx
    pushl %esi
    pushl %edi
    pushl %ebp
    movl 20(%esp), %eax
    movw %ax, task_pointer + 4
    lcall *task_pointer
    popl %ebp
    popl %edi
    popl %esi
    popl %ebx
    ret

/* void lose_stack(word stack) */
    .globl lose_stack
lose_stack:
    movl 4(%esp), %esp
    int3

    .bss
    .p2align 2
    .globl task_turns, task_seen
task_turns: .skip 4
task_seen: .skip 4
task_pointer: .skip 8
