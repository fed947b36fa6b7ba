/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who runs. Kernel mode is not pre-empted: what runs there goes on until it sleeps or returns to user mode, so data needs no locks but
 * where their user sleeps in the middle.
 */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#include "arch.h"

struct process;

struct lock {
    struct process *owner; /* null: free */
    bool is_wanted;        /* somebody sleeps until it is free */
};

extern struct process *current;
extern volatile uint32_t ticks; /* since the start, 100 a second */
extern bool can_sleep;          /* interrupts and processes run; before, drivers poll */

/* Until someone wakes the channel, an address that both know. A sleeper looks again at what it waits for. */
void sleep_on(const void *channel);
void wake_all(const void *channel);
void sleep_ticks(unsigned count);

void lock_acquire(struct lock *lock);
void lock_release(struct lock *lock);

/* For locks whose owner may wait for memory: a killed process gives up, for its memory may be what the owner waits for. */
bool lock_acquire_unless_killed(struct lock *lock);

/* A thread of the kernel; it never ends. */
void thread_create(const char *name, void (*body)(void *), void *argument);

/* Let others run, if any can. */
void yield(void);

/* In the middle of a long piece of work without a sleep: interrupts are served, and others run; false: killed, give up. */
bool let_others_run(void);

#endif
