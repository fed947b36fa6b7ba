/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of the fuzz guest that C cannot say: the entry, one access in ring 0 or 3 and in 32-bit or 64-bit code, and the
 * way back from whatever that access causes. The interpreter stays 32-bit code in every mode; under 4-level paging it
 * runs in compatibility mode, and only the access and the handlers are 64-bit code.
 */
#define CODE32 0x08
#define DATA32 0x10
#define USER_CODE32 0x1b
#define USER_DATA 0x23
#define CODE64 0x28
#define USER_CODE64 0x33
#define LDT_FIRST 0x07   /* entry 0 of the LDT, RPL 3 */

#define EFLAGS_FIXED 0x2
#define EFLAGS_AC_BIT 18

    .section .multiboot, "a"
    .p2align 2
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .text
    .globl entry
entry:
    movl $stack_top, %esp
    pushl $0
    popfl
    pushl %ebx
    call boot
1:  hlt
    jmp 1b

/* void load_segments(const void *gdtr): the guest's own GDT. */
    .globl load_segments
load_segments:
    movl 4(%esp), %eax
    lgdt (%eax)
    movl $DATA32, %eax
    movl %eax, %ss
    movl $USER_DATA, %eax   /* loaded in ring 0, it stays usable after IRET to ring 3 */
    movl %eax, %ds
    movl %eax, %es
    ljmp $CODE32, $1f
1:  ret

/*
 * What an access executes, once for each ring: the same bytes do the same in 32-bit and in 64-bit code. ECX is the
 * address, EAX the value. INT 80h says that nothing faulted.
 */
.macro STUBS prefix
\prefix\()_read:     movl (%ecx), %eax
                     int $0x80
\prefix\()_write:    movl %eax, (%ecx)
                     int $0x80
\prefix\()_fetch:    jmp *%ecx
\prefix\()_exchange: xchgl %eax, (%ecx)
                     int $0x80
\prefix\()_compare:  lock cmpxchgl %ecx, (%ecx)   /* a write, whether or not EAX is there */
                     int $0x80
\prefix\()_or:       orl $0, (%ecx)
                     int $0x80
\prefix\()_verify:   movl $LDT_FIRST, %ecx
                     verr %cx   /* reads a descriptor, as the processor itself */
                     int $0x80
.endm

    STUBS kernel

    .section .user, "ax"
    .p2align 12
    STUBS user
    .p2align 12

    .section .rodata
    .p2align 2
    .globl stubs
stubs:
    .long kernel_read, kernel_write, kernel_fetch, kernel_exchange, kernel_compare, kernel_or, kernel_verify
    .long user_read, user_write, user_fetch, user_exchange, user_compare, user_or, user_verify

/* void access32(void), void access64(void): carry out `request`, leave the answer in `answer`. */
    .text
    .globl access32
access32:
    pushal
    pushfl
    movl %esp, resume_esp
    movl request_va, %ecx
    movl request_value, %eax
    movl request_stub, %edx
    movl request_eflags, %ebx
    cmpl $0, request_user
    jne 1f
    pushl %ebx
    popfl
    jmp *%edx
1:  pushl $USER_DATA
    pushl $0
    pushl %ebx
    pushl $USER_CODE32
    pushl %edx
    iretl

    .globl access64
access64:
    pushal
    pushfl
    movl %esp, resume_esp
    ljmp $CODE64, $1f
    .code64
1:  movl %esp, %esp
    movl $request_va, %esi
    movq (%rsi), %rcx
    movl $request_value, %esi
    movl (%rsi), %eax
    movl $request_stub, %esi
    movl (%rsi), %edx
    movl $request_eflags, %esi
    movl (%rsi), %ebx
    movl $request_user, %esi
    cmpl $0, (%rsi)
    jne 2f
    pushq %rbx
    popfq
    jmp *%rdx
2:  pushq $USER_DATA
    pushq $0
    pushq %rbx
    pushq $USER_CODE64
    pushq %rdx
    iretq
    .code32

/* void invalidate64(void): INVLPG of the address in request_va, by 64-bit code. */
    .globl invalidate64
invalidate64:
    lcall $CODE64, $1f
    ret
    .code64
1:  movl $request_va, %ecx
    movq (%rcx), %rcx
    invlpg (%rcx)
    lretl
    .code32

/* Handlers: the answer is noted, and access32 or access64 returns to its caller. */
.macro HANDLER number, has_error
handler32_\number:
    .if \has_error == 0
    pushl $0
    .endif
    pushl $\number
    jmp handled32
    .code64
handler64_\number:
    .if \has_error == 0
    pushq $0
    .endif
    pushq $\number
    jmp handled64
    .code32
.endm

.macro HANDLER_ADDRESSES number
    .long \number, handler32_\number, handler64_\number
.endm

.irp number, 0, 1, 2, 3, 4, 5, 6, 7, 9, 16, 18, 19, 128
    HANDLER \number, 0
.endr
.irp number, 8, 10, 11, 12, 13, 14, 17
    HANDLER \number, 1
.endr

handled32:
    movl %eax, %ss:answer_value
    popl %ss:answer_vector
    popl %ss:answer_error
    movl %cr2, %eax
    movl %eax, %ss:answer_cr2
    movl $0, %ss:answer_cr2 + 4
    popl %ss:answer_ip
    jmp resume

    .code64
handled64:
    movl $answer_vector, %edi
    popq %rcx
    movl %ecx, (%rdi)
    movl $answer_error, %edi
    popq %rcx
    movl %ecx, (%rdi)
    movl $answer_value, %edi
    movl %eax, (%rdi)
    movq %cr2, %rcx
    movl $answer_cr2, %edi
    movq %rcx, (%rdi)
    popq %rcx
    movl $answer_ip, %edi
    movl %ecx, (%rdi)
    movl $resume_esp, %edi
    movl (%rdi), %esp
    movl $DATA32, %ecx
    movl %ecx, %ss
    pushq $CODE32
    movl $resume, %ecx
    pushq %rcx
    lretq
    .code32

    .globl resume
resume:
    movl $USER_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    cmpl $0, in_access
    je stray
    movl resume_esp, %esp
    popfl
    popal
    ret

    .section .rodata
    .p2align 2
    .globl handlers
handlers:
.irp number, 0, 1, 2, 3, 4, 5, 6, 7, 9, 16, 18, 19, 128, 8, 10, 11, 12, 13, 14, 17
    HANDLER_ADDRESSES \number
.endr
    .long -1

    .bss
    .p2align 12
    .skip 16384
    .globl stack_top
stack_top:
    .skip 4096
    .globl trap_stack_top
trap_stack_top:
    .globl request_va, request_value, request_stub, request_eflags, request_user, in_access, resume_esp
    .globl answer_vector, answer_error, answer_value, answer_cr2, answer_ip
request_va:     .skip 8
request_value:  .skip 4
request_stub:   .skip 4
request_eflags: .skip 4
request_user:   .skip 4
in_access:      .skip 4
resume_esp:     .skip 4
answer_cr2:     .skip 8
answer_vector:  .skip 4
answer_error:   .skip 4
answer_value:   .skip 4
answer_ip:      .skip 4
