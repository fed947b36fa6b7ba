/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupt entry, guarded calls, probes and the way to ring 3. The frame is struct frame of traps.h. */
#include "arch.h"

#if PAGING_LEVELS == 4
#define REG(name) %r##name
#define WORD_BYTES 8
#define IRET iretq
#else
#define REG(name) %e##name
#define WORD_BYTES 4
#define IRET iretl
#endif

/* Vectors for which the CPU pushes an error code: 8, 10 to 14, 17, 21, 29, 30. */
#define ERROR_CODE_VECTORS 0x60227D00

    .text
    .p2align 4
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .p2align 4
    .if vector >= 32 || !((ERROR_CODE_VECTORS >> (vector & 31)) & 1)
    push $0
    .endif
    push $vector
    jmp save_frame
    .set vector, vector + 1
    .endr

    .p2align 4
save_frame:
#if PAGING_LEVELS == 4
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    cld
    call trap_dispatch
    movq %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    addq $16, %rsp
    iretq
#else
    pushal
    pushl %ds
    pushl %es
    movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    cld
    movl %esp, %ebp
    pushl %ebp
    call trap_dispatch
    movl %ebp, %esp
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iretl
#endif

/* bool guarded_call(void (*body)(word), word argument): true if it was ended by land. The argument is in EDI too, for bodies in assembly. */
    .globl guarded_call
guarded_call:
#if PAGING_LEVELS == 4
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    pushq landing
    movq %rsp, landing
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
#else
    push %ebp
    push %ebx
    push %esi
    push %edi
    pushl landing
    movl %esp, landing
    movl 24(%esp), %eax
    movl 28(%esp), %edi
    pushl %edi
    call *%eax
#endif
    xor %ecx, %ecx
    jmp leave_guarded

/* _Noreturn void land(void): ends the innermost guarded call from wherever the CPU is in ring 0. */
    .globl land
land:
    mov $1, %ecx
leave_guarded:
    cld
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov landing, REG(dx)
    mov %eax, %ss
    mov REG(dx), REG(sp)
#if PAGING_LEVELS == 4
    popq landing
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
#else
    popl landing
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
#endif
    mov %ecx, %eax
    ret

/* Probes: bodies for guarded_call whose first instruction makes the access. */
    .globl probe_read, probe_write, probe_fetch
probe_read:
    mov (REG(di)), %eax
    mov %eax, probe_value
    ret
probe_write:
    mov %edi, (REG(di))
    ret
probe_fetch:
    jmp *REG(di)

/* void enter_user(word): uses user_entry, user_selector, user_stack, user_flags and user_argument; ring 3 leaves by a trap. */
    .globl enter_user
enter_user:
    mov $USER_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    push $USER_DATA
    push user_stack
    push user_flags
    push user_selector
    push user_entry
    mov user_argument, REG(di)
    IRET

    .globl user_blob, user_blob_end, user_read, user_write, user_fetch, user_return
    .section .rodata
    .p2align 4
user_blob:
user_read:
    mov (REG(di)), %eax
user_return:
    int $USER_RETURN_VECTOR
user_write:
    mov %edi, (REG(di))
    int $USER_RETURN_VECTOR
user_fetch:
    jmp *REG(di)
user_blob_end:

    .section .bss
    .p2align 3
    .globl landing, probe_value, user_entry, user_selector, user_stack, user_flags, user_argument
landing: .skip 8
probe_value: .skip 8
user_entry: .skip 8
user_selector: .skip 8
user_stack: .skip 8
user_flags: .skip 8
user_argument: .skip 8
