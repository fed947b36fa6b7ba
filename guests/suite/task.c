/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Task switches by the CPU: CALL of a task, a task with an address space of its own, task gates. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

/* Words of a task state segment (Intel SDM volume 3, figure 8-2). */
enum { TASK_CR3 = 7, TASK_EIP = 8, TASK_EFLAGS = 9, TASK_ESP = 14, TASK_EDI = 17, TASK_ES = 18, TASK_CS = 19, TASK_GS = 23 };
enum { TASK_GATE_ACCESS = 0x85 };

extern uint32_t task_turns, task_seen;
void counting_task(void);
void reading_task(void);
void double_fault_task(void);
void call_task(word selector);
void lose_stack(word stack);

static uint32_t *new_task(void (*body)(void), word argument)
{
    uint32_t *task = (uint32_t *)frame_new();

    task[TASK_CR3] = (uint32_t)read_cr3();
    task[TASK_EIP] = (uint32_t)body;
    task[TASK_EFLAGS] = FLAG_FIXED;
    task[TASK_ESP] = frame_new() + PAGE_BYTES;
    task[TASK_EDI] = argument;
    for (unsigned i = TASK_ES; i <= TASK_GS; i++)
        task[i] = KERNEL_DATA;
    task[TASK_CS] = KERNEL_CODE;
    gdt[SPARE_SELECTOR / 8] = descriptor((uint32_t)task, TASK_BYTES - 1, 0x89, 0);
    task_turns = 0;
    return task;
}

/* What a switch saves of CR3 is the segment's own, which must be right for the way back. */
static void set_own_root(void)
{
    task_state[TASK_CR3] = (uint32_t)read_cr3();
}

static void check_call(word unused)
{
    uint32_t *task = new_task(counting_task, 0);

    (void)unused;
    set_own_root();
    for (unsigned turn = 1; turn <= 3; turn++) {
        call_task(SPARE_SELECTOR);
        expect("turns", turn, task_turns);
    }
    expect("back link", TASK_STATE, task[0]);
    expect("busy bit after the return", 0x89, gdt[SPARE_SELECTOR / 8] >> 40 & 0xFF);
}

static void check_own_space(word unused)
{
    entry_t *other = space_new();
    word frame = frame_new();
    uint32_t *task;

    (void)unused;
    set_own_root();
    *at(map_new(TEST_VA, WRITABLE)) = 1;
    *at(frame) = 2;
    map(other, TEST_VA, frame, 0);
    task = new_task(reading_task, TEST_VA);
    task[TASK_CR3] = (uint32_t)other;
    call_task(SPARE_SELECTOR);
    expect("word that the task read", 2, task_seen);
    expect("CR3 after the return", (word)space, read_cr3());
    expect("word here", 1, *at(TEST_VA));
}

static void set_task_gate(unsigned vector)
{
    idt[vector] = (uint64_t)TASK_GATE_ACCESS << 40 | (uint64_t)SPARE_SELECTOR << 16;
}

static void check_gate(word unused)
{
    (void)unused;
    set_own_root();
    new_task(counting_task, 0);
    set_task_gate(VECTOR_BREAKPOINT);
    __asm__ volatile("int3");
    expect("turns", 1, task_turns);
}

static void check_double_fault(word unused)
{
    (void)unused;
    set_own_root();
    new_task(double_fault_task, 0);
    set_task_gate(VECTOR_DOUBLE_FAULT);
    try(lose_stack, TEST_VA + PAGE_BYTES);
    expect("turns", 1, task_turns);
    expect("error code", 0, task_seen);
}

static const struct test_case cases[] = {
    {"task.call", check_call, 0},
    {"task.own-space", check_own_space, 0},
    {"task.gate", check_gate, 0},
    {"task.double-fault", check_double_fault, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
