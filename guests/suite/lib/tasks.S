/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far transfers to tasks, and the bodies of tasks; see tasks.h. */
#include "arch.h"

#if PAGING_LEVELS != 4
#define NESTED 0x4000

    .text
/* EDI: the vector, whose error code is on the stack. */
    .globl catching_task
catching_task:
    pushl %edi
    call caught

    .globl counting_task
counting_task:
    incl task_turns
    iretl
    jmp counting_task

    .globl jumping_task
jumping_task:
    incl task_turns
    ljmp *main_task
    jmp jumping_task

    .globl reading_task
reading_task:
    movl (%edi), %eax
    movl %eax, task_seen
    iretl
    jmp reading_task

    .globl popping_task
popping_task:
    popl task_seen
    incl task_turns
    iretl
    jmp popping_task

    .globl landing_task
landing_task:
    jmp land

    .globl recording_task
recording_task:
    movl %eax, %ss:task_entry + 4
    movl %ecx, %ss:task_entry + 8
    movl %edx, %ss:task_entry + 12
    movl %ebx, %ss:task_entry + 16
    movl %esp, %ss:task_entry + 20
    movl %ebp, %ss:task_entry + 24
    movl %esi, %ss:task_entry + 28
    movl %edi, %ss:task_entry + 32
    movw %es, %ss:task_entry + 36
    movw %cs, %ss:task_entry + 40
    movw %ss, %ss:task_entry + 44
    movw %ds, %ss:task_entry + 48
    movw %fs, %ss:task_entry + 52
    movw %gs, %ss:task_entry + 56
    pushfl
    popl %ss:task_entry
    iretl
    jmp recording_task

    .globl call_task, call_task_ip, after_call_task
call_task:
    pushal
    movl 36(%esp), %eax
    movw %ax, task_pointer + 4
the_call:
    lcall *task_pointer
behind_the_call:
    popal
    ret
call_task_ip:
    movl $the_call, %eax
    ret
after_call_task:
    movl $behind_the_call, %eax
    ret

    .globl jump_task
jump_task:
    pushal
    movl 36(%esp), %eax
    movw %ax, task_pointer + 4
    ljmp *task_pointer
    popal
    ret

    .globl return_task
return_task:
    pushal
    pushfl
    orl $NESTED, (%esp)
    popfl
    iretl
    popal
    ret

    .data
    .p2align 2
main_task:
    .long 0
    .word TASK_STATE, 0

    .bss
    .p2align 2
    .globl task_turns, task_seen, task_entry
task_turns: .skip 4
task_seen: .skip 4
task_entry: .skip 64
task_pointer: .skip 8
#endif
