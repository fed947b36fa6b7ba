/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copied to a user page by paging.c, so it must not depend on where it is. EDI: the address to access. */
#include "lib/user.h"

    .section .rodata
    .globl ring3_code, ring3_code_end, ring3_load, ring3_store, ring3_resume
ring3_code:
ring3_load:
    movl (%edi), %eax
    int $USER_RETURN_VECTOR
ring3_store:
    movl %edi, (%edi)
ring3_resume:
    int $USER_RETURN_VECTOR
ring3_code_end:
