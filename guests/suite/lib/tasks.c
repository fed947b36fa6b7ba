/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tasks.h"

#if PAGING_LEVELS != 4
#include "../../lib/string.h"
#include "cpu.h"
#include "memory.h"
#include "report.h"
#include "traps.h"

enum { STACK_BYTES = 512, FIRST_CAUGHT = 8, LAST_CAUGHT = 14 };

uint64_t task_gdt[TASK_GDT_SLOTS] __attribute__((aligned(4096)));
static uint32_t catchers[LAST_CAUGHT + 1][TASK_WORDS] __attribute__((aligned(4096)));
static uint8_t stacks[LAST_CAUGHT + 1][STACK_BYTES] __attribute__((aligned(4096)));
static struct caught last;

bool guarded_call(void (*body)(word), word argument);
void catching_task(void);

static bool is_caught(unsigned vector)
{
    return vector == VECTOR_DOUBLE_FAULT || (vector >= VECTOR_INVALID_TSS && vector <= VECTOR_PAGE_FAULT);
}

static void fill(uint32_t *task, void (*body)(void), word argument, word stack)
{
    memset(task, 0, TASK_WORDS * sizeof *task);
    task[TASK_CR3] = (uint32_t)read_cr3();
    task[TASK_EIP] = (uint32_t)body;
    task[TASK_EFLAGS] = FLAG_FIXED;
    task[TASK_ESP] = stack;
    task[TASK_EDI] = argument;
    for (unsigned i = TASK_ES; i <= TASK_GS; i++)
        task[i] = KERNEL_DATA;
    task[TASK_CS] = KERNEL_CODE;
}

static void reset_task_register(void)
{
    task_gdt[TASK_STATE / 8] = descriptor((uint32_t)task_state, TASK_BYTES - 1, TASK_AVAILABLE, 0);
    __asm__ volatile("ltr %w0; pushfl; andl %1, (%%esp); popfl" : : "r"(TASK_STATE), "i"(~FLAG_NESTED) : "memory");
}

static void reset_catchers(void)
{
    for (unsigned vector = FIRST_CAUGHT; vector <= LAST_CAUGHT; vector++) {
        unsigned selector = CATCHERS + vector * 8;

        if (!is_caught(vector))
            continue;
        fill(catchers[vector], catching_task, vector, (word)stacks[vector + 1]);
        task_gdt[selector / 8] = descriptor((uint32_t)catchers[vector], TASK_BYTES - 1, TASK_AVAILABLE, 0);
        set_task_gate(vector, selector, 0);
    }
}

void tasks_reset(void)
{
    memset(task_gdt, 0, sizeof task_gdt);
    memcpy(task_gdt, gdt, TASK_STATE);
    task_state[TASK_CR3] = (uint32_t)read_cr3();
    load_gdt(task_gdt, sizeof task_gdt);
    reset_task_register();
    reset_catchers();
    task_turns = task_seen = 0;
}

uint32_t *task_new(unsigned selector, void (*body)(void), word argument)
{
    uint32_t *task = (uint32_t *)frame_new();

    fill(task, body, argument, frame_new() + PAGE_BYTES);
    task_gdt[selector / 8] = descriptor((uint32_t)task, TASK_BYTES - 1, TASK_AVAILABLE, 0);
    return task;
}

uint64_t task_gate(unsigned selector, unsigned ring)
{
    return (uint64_t)(TASK_GATE | ring << 5) << 40 | (uint64_t)selector << 16;
}

void set_task_gate(unsigned vector, unsigned selector, unsigned ring)
{
    idt[vector] = task_gate(selector, ring);
}

unsigned access_of(unsigned selector)
{
    return task_gdt[selector / 8] >> 40 & 0xFF;
}

void set_access(unsigned selector, unsigned access)
{
    task_gdt[selector / 8] = (task_gdt[selector / 8] & ~(0xFFull << 40)) | (uint64_t)access << 40;
}

/* From catching_task, in the task of a vector. */
_Noreturn void caught(unsigned vector, uint32_t error)
{
    last = (struct caught){vector, error, catchers[vector][TASK_LINK] & 0xFFFF};
    land();
}

struct caught try_task(void (*body)(word), word argument)
{
    last = (struct caught){NO_TRAP, 0, 0};
    guarded_call(body, argument);
    reset_task_register();
    reset_catchers();
    return last;
}

void expect_caught(const char *what, struct caught caught, unsigned vector, uint32_t error, unsigned link)
{
    expect(what, vector, caught.vector);
    expect(what, error, caught.error);
    expect(what, link, caught.link);
}

void expect_not_caught(const char *what, struct caught caught)
{
    expect(what, NO_TRAP, caught.vector);
}
#endif
