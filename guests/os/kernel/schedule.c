/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who runs.
 *
 *     NEW --process_begin--> READY --switch_away--> RUNNING --sleep_on--> SLEEPING --wake_all, time--> READY;  RUNNING --yield, end of slice--> READY
 *
 * 1. READY processes are in the queue, in the order in which they became so; no others are.
 * 2. `current` is RUNNING, or waits in `pick` for somebody to become READY: there is no idle process, the last one waits on its own stack.
 */
#include "schedule.h"

#include "../include/syscall.h"
#include "../../lib/pit.h"
#include "../../lib/platform.h"
#include "../../lib/string.h"
#include "kernel.h"
#include "process.h"
#include "processor.h"
#include "schedule_internal.h"

enum { SLICE_TICKS = 4 };

void switch_stacks(word *old_stack, word new_stack);
extern const uint8_t first_return[];

struct process processes[PROCESSES];
struct process *current;
volatile uint32_t ticks;
bool can_sleep;
static uint8_t stacks[PROCESSES][KERNEL_STACK_BYTES] __attribute__((aligned(16)));
static struct process *queue_first, *queue_last;
static bool is_slice_over;

static void make_ready(struct process *process)
{
    process->state = PROCESS_READY;
    process->channel = NULL;
    process->wake_at = 0;
    process->next = NULL;
    if (queue_first)
        queue_last->next = process;
    else
        queue_first = process;
    queue_last = process;
}

static struct process *pick(void)
{
    struct process *process;

    while (!queue_first)
        wait_for_interrupt();
    process = queue_first;
    queue_first = process->next;
    return process;
}

static void *stack_top(struct process *process)
{
    return stacks[process - processes] + KERNEL_STACK_BYTES;
}

static void switch_away(void)
{
    struct process *old = current;
    struct process *next = pick();

    next->state = PROCESS_RUNNING;
    next->slice = SLICE_TICKS;
    is_slice_over = false;
    if (next == old)
        return;
    current = next;
    set_kernel_stack(stack_top(next));
    if (next->space)
        space_load(next->space);
    switch_stacks(&old->stack, next->stack);
}

void yield(void)
{
    if (!queue_first)
        return;
    make_ready(current);
    switch_away();
}

bool let_others_run(void)
{
    take_interrupts();
    yield();
    return !current->is_killed;
}

static void sleep(const void *channel, uint32_t wake_at)
{
    current->state = PROCESS_SLEEPING;
    current->channel = channel;
    current->wake_at = wake_at;
    switch_away();
}

void sleep_on(const void *channel)
{
    sleep(channel, 0);
}

void sleep_ticks(unsigned count)
{
    uint32_t until = ticks + count;

    if (count)
        sleep(NULL, until ? until : 1);
}

void wake_all(const void *channel)
{
    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->state == PROCESS_SLEEPING && process->channel == channel)
            make_ready(process);
}

void process_wake(struct process *process)
{
    if (process->state == PROCESS_SLEEPING)
        make_ready(process);
}

static void take_lock(struct lock *lock)
{
    lock->owner = current ? current : processes; /* before there are processes, anybody */
}

void lock_acquire(struct lock *lock)
{
    while (lock->owner) {
        lock->is_wanted = true;
        sleep_on(lock);
    }
    take_lock(lock);
}

bool lock_acquire_unless_killed(struct lock *lock)
{
    while (lock->owner && !current->is_killed) {
        lock->is_wanted = true;
        sleep_on(lock);
    }
    if (lock->owner)
        return false;
    take_lock(lock);
    return true;
}

void lock_release(struct lock *lock)
{
    lock->owner = NULL;
    if (lock->is_wanted) {
        lock->is_wanted = false;
        wake_all(lock);
    }
}

static void on_tick(void)
{
    ticks++;
    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->state == PROCESS_SLEEPING && process->wake_at && (int32_t)(ticks - process->wake_at) >= 0)
            make_ready(process);
    if (current && current->slice && --current->slice == 0)
        is_slice_over = true;
}

void before_user(void)
{
    if (is_slice_over) {
        is_slice_over = false;
        yield();
        current->slice = SLICE_TICKS;
    }
    if (current->is_killed)
        process_exit(KILLED + SIGNAL_KILL);
}

/* The stack that switch_stacks pops, with what first_return calls. */
struct first_frame {
#if PAGING_LEVELS == 4
    word saved[4];
#else
    word saved[2];
#endif
    word body, argument, return_address, caller;
};

struct process *process_new(const char *name, void (*body)(void *), void *argument, unsigned kept)
{
    for (struct process *process = processes; process < processes + PROCESSES; process++) {
        struct first_frame *frame = (struct first_frame *)((uint8_t *)stack_top(process) - kept) - 1;

        if (process->state != PROCESS_FREE)
            continue;
        *process = (struct process){.state = PROCESS_NEW, .parent = current, .stack = (word)frame};
        strlcpy(process->name, name, NAME_LENGTH);
        *frame = (struct first_frame){.body = (word)body, .argument = (word)argument, .return_address = (word)first_return};
        return process;
    }
    return NULL;
}

void process_set_argument(struct process *process, void *argument)
{
    ((struct first_frame *)process->stack)->argument = (word)argument;
}

void process_leave(void)
{
    switch_away();
    panic("a process came back from its end");
}

struct registers *process_registers(struct process *process)
{
    return (struct registers *)stack_top(process) - 1;
}

void process_begin(struct process *process)
{
    make_ready(process);
}

void thread_create(const char *name, void (*body)(void *), void *argument)
{
    struct process *process = process_new(name, body, argument, 0);

    if (!process)
        panic("no room for thread %s", name);
    make_ready(process);
}

void schedule_init(void)
{
    current = processes; /* what runs since the start goes on as a thread */
    *current = (struct process){.state = PROCESS_RUNNING, .name = "main", .slice = SLICE_TICKS};
    irq_install(PIT_IRQ, on_tick);
    pit_start(TICKS_PER_SECOND);
    can_sleep = true;
}
