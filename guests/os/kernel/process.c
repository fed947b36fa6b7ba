/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Processes: fork, exit, wait. A process ends in three steps: process_exit gives back files and memory and leaves a ZOMBIE, whose parent
 * learns its status in process_wait, which frees the entry. Orphans become children of init.
 */
#include "process.h"

#include "../../lib/string.h"
#include "files.h"
#include "kernel.h"
#include "schedule.h"
#include "schedule_internal.h"
#include "system_calls.h"

static int last_pid;

static int new_pid(void)
{
    do
        last_pid = last_pid < 0x7FFF ? last_pid + 1 : 2;
    while (process_with_pid(last_pid));
    return last_pid;
}

struct process *process_with_pid(int pid)
{
    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->state != PROCESS_FREE && process->pid == pid && pid > 0)
            return process;
    return NULL;
}

static void to_user(void *registers)
{
    before_user();
    enter_user(registers);
}

static void run_init(void *unused)
{
    struct registers *registers = process_registers(current);
    int error;

    (void)unused;
    current->space = space_new();
    if (!current->space)
        panic("no memory for the first process");
    files_open_console(current->files);
    error = process_exec("/bin/init", 0, registers);
    if (error)
        panic("cannot run /bin/init: error %d", -error);
    to_user(registers);
}

void process_start_init(void)
{
    struct process *process = process_new("init", run_init, NULL, sizeof(struct registers));

    process->pid = last_pid = INIT_PID;
    process->parent = NULL;
    process_begin(process);
}

int process_fork(const struct registers *registers)
{
    struct process *child = process_new(current->name, to_user, NULL, sizeof *registers);
    struct registers *copy;

    if (!child)
        return -EAGAIN;
    child->pid = new_pid();
    child->space = space_fork(current->space);
    if (!child->space) {
        child->state = PROCESS_FREE;
        return -ENOMEM;
    }
    files_share(child->files, current->files);
    copy = process_registers(child);
    *copy = *registers;
    copy->ax = 0;
    process_set_argument(child, copy);
    process_begin(child);
    return child->pid;
}

static void leave_children(void)
{
    struct process *init = process_with_pid(INIT_PID);

    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->state != PROCESS_FREE && process->parent == current) {
            process->parent = init;
            if (process->state == PROCESS_ZOMBIE)
                wake_all(init);
        }
}

void process_exit(int status)
{
    struct space *space = current->space;

    if (current->pid == INIT_PID)
        power_off(status);
    files_close_all(current->files);
    current->space = NULL;
    space_load(NULL);
    if (space)
        space_free(space);
    leave_children();
    current->status = status;
    current->state = PROCESS_ZOMBIE;
    wake_all(current->parent);
    process_leave();
}

int process_wait(int pid, int *status)
{
    for (;;) {
        bool has_child = false;

        for (struct process *process = processes; process < processes + PROCESSES; process++) {
            if (process->state == PROCESS_FREE || process->parent != current || !process->pid || (pid > 0 && process->pid != pid))
                continue;
            has_child = true;
            if (process->state == PROCESS_ZOMBIE) {
                int found = process->pid;

                *status = process->status;
                process->state = PROCESS_FREE;
                return found;
            }
        }
        if (!has_child)
            return -ECHILD;
        if (current->is_killed)
            return -EAGAIN;
        sleep_on(current);
    }
}

void process_kill(struct process *process)
{
    process->is_killed = true;
    process_wake(process);
}

void process_kill_family(struct process *process)
{
    for (struct process *member = processes; member < processes + PROCESSES; member++)
        for (struct process *at = member; at && member->state != PROCESS_FREE; at = at->parent)
            if (at == process) {
                process_kill(member);
                break;
            }
}
