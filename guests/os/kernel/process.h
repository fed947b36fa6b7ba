/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processes, and the kernel's own threads, which are processes without an address space. */
#ifndef PROCESS_H
#define PROCESS_H

#include "arch.h"
#include "space.h"
#include "traps.h"

enum { PROCESSES = 64, FILES = 16, NAME_LENGTH = 16, INIT_PID = 1 };

enum process_state { PROCESS_FREE, PROCESS_NEW, PROCESS_READY, PROCESS_RUNNING, PROCESS_SLEEPING, PROCESS_ZOMBIE };

struct file;

struct process {
    int pid;                  /* 0 for threads of the kernel */
    uint8_t state;            /* enum process_state */
    bool is_killed;           /* it ends before it runs user code again */
    char name[NAME_LENGTH];
    struct process *parent;
    int status;               /* of a zombie, for wait */
    struct space *space;
    struct file *files[FILES];
    word stack;               /* saved stack pointer while it does not run */
    const void *channel;      /* what it sleeps on */
    uint32_t wake_at;         /* tick that ends its sleep, 0: none */
    unsigned slice;           /* ticks left before others get their turn */
    struct process *next;     /* in the queue of those that are ready */
};

extern struct process processes[PROCESSES];

/* The first process, running /bin/init with these words. */
void process_start_init(void);

/* The pid of a copy of the calling process; its registers return 0. -EAGAIN, -ENOMEM. */
int process_fork(const struct registers *registers);
_Noreturn void process_exit(int status);
int process_wait(int pid, int *status);

/* Ends it at its next return to user code, and wakes it. */
void process_kill(struct process *process);
/* The same for a process and all that descend from it. */
void process_kill_family(struct process *process);
struct process *process_with_pid(int pid);

/* Replaces the program: 0, or an error that leaves it as it was. The registers return to the new one. */
int process_exec(const char *path, word argv, struct registers *registers);

/* Before a return to user code: end if killed, let others run if the time is up. */
void before_user(void);

void schedule_init(void);

#endif
