/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The entry of each vector, the way back, the switch between kernel stacks, and the copy that may fault. */
#include "arch.h"

#if PAGING_LEVELS == 4
#define PUSH pushq
#else
#define PUSH pushl
#endif

/* Vectors whose exceptions push an error code: 8, 10 to 14, 17. */
#define HAS_ERROR 0x27D00

    .text
    .globl trap_entries
    .p2align 4
trap_entries: /* 16 bytes each */
    .set vector, 0
    .rept 0x81
    .p2align 4
    .if vector < 32 && ((HAS_ERROR >> vector) & 1)
    .else
    PUSH $0
    .endif
    PUSH $vector
    jmp trap
    .set vector, vector + 1
    .endr

#if PAGING_LEVELS == 4
trap:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call on_trap
trap_return:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq

    .globl enter_user
enter_user:
    movq %rdi, %rsp
    jmp trap_return

/* void switch_stacks(word *old_stack, word new_stack): what a call need not keep is not kept. */
    .globl switch_stacks
switch_stacks:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

/* bool user_copy(void *to, const void *from, size_t bytes) */
    .globl user_copy, user_copy_end, user_copy_failed
user_copy: /* by words: string instructions are what emulators do worst */
    jmp 2f
1:
    .set at, 0
    .rept 4
    movq at(%rsi), %rax
    movq at + 8(%rsi), %rcx
    movq %rax, at(%rdi)
    movq %rcx, at + 8(%rdi)
    .set at, at + 16
    .endr
    addq $64, %rsi
    addq $64, %rdi
2:  subq $64, %rdx
    jae 1b
    addq $64, %rdx
    jmp 4f
3:  movb (%rsi), %al
    movb %al, (%rdi)
    incq %rsi
    incq %rdi
4:  subq $1, %rdx
    jae 3b
user_copy_end:
    movl $1, %eax
    ret
user_copy_failed:
    xorl %eax, %eax
    ret
#else
trap:
    pushl %eax
    pushl %ebx
    pushl %ecx
    pushl %edx
    pushl %ebp
    pushl %esi
    pushl %edi
    cld
    movl $USER_DATA, %eax       /* the kernel's too: a load costs more than a look */
    movl %ds, %ebx
    movl %es, %ecx
    cmpl %eax, %ebx
    jne 1f
    cmpl %eax, %ecx
    je 2f
1:  movl %eax, %ds
    movl %eax, %es
2:  pushl %esp
    call on_trap
    addl $4, %esp
trap_return:
    popl %edi
    popl %esi
    popl %ebp
    popl %edx
    popl %ecx
    popl %ebx
    popl %eax
    addl $8, %esp
    iret

    .globl enter_user
enter_user:
    movl 4(%esp), %esp
    jmp trap_return

/* void switch_stacks(word *old_stack, word new_stack): what a call need not keep is not kept. */
    .globl switch_stacks
switch_stacks:
    movl 4(%esp), %eax
    movl 8(%esp), %edx
    pushl %ebx
    pushl %ebp
    pushl %esi
    pushl %edi
    movl %esp, (%eax)
    movl %edx, %esp
    popl %edi
    popl %esi
    popl %ebp
    popl %ebx
    ret

/* bool user_copy(void *to, const void *from, size_t bytes) */
    .globl user_copy, user_copy_end, user_copy_failed
user_copy:
    pushl %esi
    pushl %edi
    movl 12(%esp), %edi
    movl 16(%esp), %esi
    movl 20(%esp), %edx
    jmp 2f
1:
    .set at, 0
    .rept 8
    movl at(%esi), %eax
    movl at + 4(%esi), %ecx
    movl %eax, at(%edi)
    movl %ecx, at + 4(%edi)
    .set at, at + 8
    .endr
    addl $64, %esi
    addl $64, %edi
2:  subl $64, %edx
    jae 1b
    addl $64, %edx
    jmp 4f
3:  movb (%esi), %al
    movb %al, (%edi)
    incl %esi
    incl %edi
4:  subl $1, %edx
    jae 3b
user_copy_end:
    movl $1, %eax
    popl %edi
    popl %esi
    ret
user_copy_failed:
    xorl %eax, %eax
    popl %edi
    popl %esi
    ret
#endif

/* Where a new process or thread first wakes up: switch_stacks returns here. */
    .globl first_return
first_return:
#if PAGING_LEVELS == 4
    movq %rbx, %rdi
    call *%rbp
#else
    pushl %ebx
    call *%ebp
#endif
    ud2
