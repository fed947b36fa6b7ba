/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tasks of the CPU, in 32-bit builds: task state segments, a descriptor table with room, and a task of its own for each
 * fault, so that a fault is seen in whatever state it leaves the machine.
 */
#ifndef TASKS_H
#define TASKS_H

#include "arch.h"

/* Words of a task state segment (Intel SDM volume 3, figure 8-2). */
enum {
    TASK_LINK, TASK_CR3 = 7, TASK_EIP, TASK_EFLAGS, TASK_EAX, TASK_ECX, TASK_EDX, TASK_EBX, TASK_ESP, TASK_EBP, TASK_ESI,
    TASK_EDI, TASK_ES, TASK_CS, TASK_SS, TASK_DS, TASK_FS, TASK_GS, TASK_LDT, TASK_TRAP,
};
enum { TASK_WORDS = 26, TASK_AVAILABLE = 0x89, TASK_BUSY = 0x8B, TASK_GATE = 0x85, LDT_PRESENT = 0x82, ACCESSED_SEGMENT = 1 };
enum { FLAG_NESTED = 1 << 14, FLAG_RESUME = 1 << 16, FLAG_IOPL_3 = 3 << 12 };

/* Selectors in task_gdt, beyond those of arch.h. */
enum {
    TASK_A = 0x80,
    TASK_B = 0x88,
    GATE = 0x90,
    LOCAL_TABLE = 0x98,
    SPARE_SEGMENT = 0xA0,
    OTHER_SEGMENT = 0xA8,
    CATCHERS = 0xC0, /* and eight for each vector */
    TASK_GDT_SLOTS = 64,
    BEYOND_TABLE = TASK_GDT_SLOTS * 8,
};

extern uint64_t task_gdt[TASK_GDT_SLOTS];
extern volatile uint32_t task_turns, task_seen; /* what the bodies of tasks.S count and read */
extern uint32_t task_entry[16];                 /* the registers that recording_task found, in the order of a segment's */

/* What a fault was: none, or its error code and the task that it interrupted. */
struct caught {
    unsigned vector;
    uint32_t error;
    unsigned link;
};

/* To be called first by each case: this table, TR = TASK_STATE, and task gates for the faults with an error code. */
void tasks_reset(void);

/* A segment of its own, at a page's start: all selectors flat, body(argument in EDI), a stack, CR3 as now. */
uint32_t *task_new(unsigned selector, void (*body)(void), word argument);

uint64_t task_gate(unsigned selector, unsigned ring);
void set_task_gate(unsigned vector, unsigned selector, unsigned ring);
unsigned access_of(unsigned selector);
void set_access(unsigned selector, unsigned access);

/* Calls body(argument); TR and NT are as after tasks_reset again. */
struct caught try_task(void (*body)(word), word argument);
void expect_caught(const char *what, struct caught caught, unsigned vector, uint32_t error, unsigned link);
void expect_not_caught(const char *what, struct caught caught);

/* By a far pointer in memory, all registers kept over it. return_task is IRET with NT set. */
void call_task(word selector);
void jump_task(word selector);
void return_task(word unused);
word call_task_ip(void); /* where the CALL is, and what follows it */
word after_call_task(void);

/* Bodies; each ends a turn with IRET (or JMP to TASK_STATE) and goes on behind it in the next. */
void counting_task(void);
void jumping_task(void);
void reading_task(void);
void recording_task(void);
void popping_task(void); /* counts, and reads the error code on its stack */
void landing_task(void); /* ends the guarded call, and needs no stack */

#endif
