/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accesses that may fault, a hundred times cheaper than guarded calls: no frame is kept, and all of them land in one
 * place. What makes the access changes no register that its caller needs but the stack pointer.
 */
#include "lib/arch.h"

#if PAGING_LEVELS == 4
#define REG(name) %r##name
#define ENTRY REG(di)
#define VA REG(si)
#define LOAD_ARGUMENTS
#define IRET iretq
#define PUSHF pushfq
#else
#define REG(name) %e##name
#define ENTRY REG(ax)
#define VA REG(dx)
#define LOAD_ARGUMENTS mov 4(%esp), ENTRY; mov 8(%esp), VA
#define IRET iretl
#define PUSHF pushfl
#endif

/* int matrix_supervisor(word entry, word va): calls ENTRY with VA in EDI; the error code of its fault, or -1. */
    .globl matrix_supervisor
matrix_supervisor:
    LOAD_ARGUMENTS
    push REG(di)
    mov REG(sp), matrix_stack
    mov ENTRY, REG(ax)
    mov VA, REG(di)
    call *REG(ax)
    mov $-1, %eax
    jmp leave

/* The same in ring 3, with the flags of the caller. */
    .globl matrix_user
matrix_user:
    LOAD_ARGUMENTS
    push REG(di)
    mov REG(sp), matrix_stack
    mov ENTRY, REG(ax)
    mov VA, REG(di)
    push $USER_DATA
    push $0 /* its stack, which no access uses */
    PUSHF
    push $USER_CODE
    push REG(ax)
    IRET

/* The gate of page faults. One that belongs to no access is the library's. */
    .globl matrix_fault
matrix_fault:
    cmpl $0, matrix_stack
    je not_ours
    pop REG(ax)
    mov %cr2, REG(dx)
    mov REG(dx), matrix_address
    jmp land_access
not_ours:
    jmp *matrix_other_fault

/* The gate by which ring 3 returns. */
    .globl matrix_return
matrix_return:
    mov $-1, %eax
land_access:
    mov matrix_stack, REG(sp)
leave:
    movl $0, matrix_stack
    pop REG(di)
    ret

    .section .bss
    .p2align 3
    .globl matrix_stack, matrix_address, matrix_other_fault
matrix_stack: .skip 8 /* the stack pointer to land with; 0: no access is under way */
matrix_address: .skip 8
matrix_other_fault: .skip 8
