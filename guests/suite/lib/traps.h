/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptor tables, and code that may trap: guarded calls, probes in ring 0 and ring 3. */
#ifndef TRAPS_H
#define TRAPS_H

#include "arch.h"

enum {
    VECTOR_DIVIDE = 0,
    VECTOR_BREAKPOINT = 3,
    VECTOR_INVALID_OPCODE = 6,
    VECTOR_DOUBLE_FAULT = 8,
    VECTOR_INVALID_TSS = 10,
    VECTOR_NOT_PRESENT = 11,
    VECTOR_STACK = 12,
    VECTOR_PROTECTION = 13,
    VECTOR_PAGE_FAULT = 14,
    VECTORS = 256,
    NO_TRAP = 256,
};

/* The interrupted context as traps.S leaves it on the stack, lowest address first. */
struct frame {
#if PAGING_LEVELS == 4
    word r15, r14, r13, r12, r11, r10, r9, r8;
    word di, si, bp, bx, dx, cx, ax;
#else
    word es, ds;
    word di, si, bp, sp_ignored, bx, dx, cx, ax;
#endif
    word vector;
    word error;
    word ip, cs, flags;
    word sp, ss; /* in 32-bit builds there only if the trap came from ring 3 */
};

/* How a guarded call ended. */
struct outcome {
    unsigned vector; /* NO_TRAP: by itself, or by the ring 3 return */
    word error;
    word address;    /* CR2 of a page fault */
    word ip;
    word cs;
    word flags;
    word value;      /* what a probe read; otherwise EAX at the trap */
    struct frame frame;
};

void traps_init(void);
void traps_reset(void);

/* Calls body(argument) until it returns or traps. */
struct outcome try(void (*body)(word), word argument);

struct outcome try_read(word va);
struct outcome try_write(word va);
struct outcome try_fetch(word va); /* where a RET must be, if anything is */

/* The same from ring 3; at a fetched address must be INT USER_RETURN_VECTOR. */
struct outcome try_user_read(word va);
struct outcome try_user_write(word va);
struct outcome try_user_fetch(word va);

/* Runs ring 3 code at its own address, with the argument in EDI, until it traps. */
struct outcome try_user(word entry, word argument);
extern word user_selector; /* of its code segment; each case starts with USER_CODE */
extern word user_flags;

/* The instruction that each probe makes its access with: the IP that a fault must tell. */
void probe_read(word va);
void probe_write(word va);
void probe_fetch(word va);
word user_probe_read(void);
word user_probe_write(void);
word user_probe_fetch(void);

/* Called first at every trap; true means that the interrupted code goes on with what is in the frame. */
extern bool (*trap_hook)(struct frame *frame);

/* Ends the innermost guarded call. */
_Noreturn void land(void);
extern word landing;

/* Expectations on outcomes. */
void expect_none(const char *what, struct outcome outcome);
void expect_trap(const char *what, struct outcome outcome, unsigned vector, word error);
void expect_page_fault(const char *what, struct outcome outcome, word address, word error);

extern uint64_t gdt[GDT_SLOTS];
struct table_register {
    uint16_t limit;
    word base;
} __attribute__((packed));
void load_gdt(const void *table, unsigned bytes);
void load_idt(const void *table, unsigned bytes);

/* The gate of a vector in the suite's own IDT: GATE_WORDS 64-bit words. */
enum { GATE_WORDS = PAGING_LEVELS == 4 ? 2 : 1 };
extern uint64_t idt[VECTORS * GATE_WORDS];
void set_gate(unsigned vector, word entry, unsigned ring);
word stub_of(unsigned vector);

/* The suite's own task state segment. */
extern uint32_t task_state[26];
enum { TASK_BYTES = 104 };
void set_trap_stack(word top);
word default_trap_stack(void);
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags);

#endif
