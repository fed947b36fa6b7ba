/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between schedule.c, which owns stacks and queue, and process.c. */
#ifndef SCHEDULE_INTERNAL_H
#define SCHEDULE_INTERNAL_H

#include "process.h"

/* A process that will begin with body(argument), `kept` bytes at the top of its stack left alone; null if all are taken. */
struct process *process_new(const char *name, void (*body)(void *), void *argument, unsigned kept);
void process_set_argument(struct process *process, void *argument);

/* The registers of its user code, at the top of its stack. */
struct registers *process_registers(struct process *process);

/* It may run. */
void process_begin(struct process *process);

/* Wakes a sleeper early. */
void process_wake(struct process *process);

/* The calling process, whose state says why, never runs again. */
_Noreturn void process_leave(void);

#endif
