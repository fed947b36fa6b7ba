/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Four processes in ring 3, each in its own address space, that the timer takes turns among. One of them stores to
 * the kernel and is killed for it. What is printed does not depend on timing: the processes' output is kept and
 * printed at the end, in the order of their pids.
 *
 * The kernel is never interrupted (IF is clear in ring 0), and every entry comes from ring 3. So a process's whole
 * state is the frame on the interrupt stack, and switching is exchanging that frame and CR3.
 */
#include "processes.h"

#include <stdbool.h>
#include <stddef.h>

#include "lib/boot.h"
#include "lib/exit.h"
#include "lib/frames.h"
#include "lib/interrupts.h"
#include "lib/paging.h"
#include "lib/pic.h"
#include "lib/pit.h"
#include "lib/platform.h"
#include "lib/print.h"
#include "lib/segments.h"
#include "lib/string.h"

enum { TICKS_PER_SECOND = 100, PROCESSES = 4, OUTPUT_MAX = 512, INTERRUPT_STACK_BYTES = 8192 };

enum { EFLAGS_RESERVED = 1 << 1, EFLAGS_IF = 1 << 9 }; /* the first is always one */

enum state { RUNNABLE, EXITED, KILLED };

struct process {
    char letter;
    void (*entry)(void);
    pte_t *directory;
    enum state state;
    struct frame frame;      /* its registers while another process runs */
    uint32_t preemptions;    /* by the timer */
    uint32_t result;         /* once EXITED: what it reported */
    uint32_t fault_address;  /* once KILLED */
    uint32_t fault_error;    /* once KILLED */
    uint32_t output_bytes;
    char output[OUTPUT_MAX]; /* what it wrote; the excess is dropped */
};

/* kernel.ld: the programs, at their load address in the kernel's image. */
extern char user_load_start[];
extern char user_load_end[];
extern char USER_IMAGE[];

static pte_t kernel_directory[TABLE_ENTRIES] PAGE_TABLE;
static uint8_t interrupt_stack[INTERRUPT_STACK_BYTES] __attribute__((aligned(16)));

static struct process processes[PROCESSES] = {
    {.letter = 'A', .entry = program_a},
    {.letter = 'B', .entry = program_b},
    {.letter = 'C', .entry = program_c},
    {.letter = 'D', .entry = program_d},
};
static struct process *current = processes;
static uint32_t ticks;

static void map_image(pte_t *directory)
{
    uint32_t bytes = (uint32_t)(user_load_end - user_load_start);

    for (uint32_t offset = 0; offset < bytes; offset += PAGE_BYTES) {
        uint32_t frame = frame_alloc();
        uint32_t rest = bytes - offset;

        memcpy((void *)frame, user_load_start + offset, rest < PAGE_BYTES ? rest : PAGE_BYTES);
        map_page(directory, (uint32_t)USER_IMAGE + offset, frame, PTE_USER);
    }
}

static void map_fresh_pages(pte_t *directory, uint32_t va, uint32_t pages)
{
    for (uint32_t i = 0; i < pages; i++)
        map_page(directory, va + i * PAGE_BYTES, frame_alloc(), PTE_USER | PTE_WRITABLE);
}

/* All address spaces share the kernel's tables, whose pages are for ring 0 only. */
static void create_process(struct process *process)
{
    process->directory = table_alloc();
    memcpy(process->directory, kernel_directory, PAGE_BYTES);
    map_image(process->directory);
    map_fresh_pages(process->directory, PROCESS_DATA_VA, PROCESS_DATA_PAGES);
    map_fresh_pages(process->directory, PROCESS_STACK_VA, PROCESS_STACK_PAGES);
    process->frame = (struct frame){
        .gs = USER_DATA,
        .fs = USER_DATA,
        .es = USER_DATA,
        .ds = USER_DATA,
        .eip = (uint32_t)process->entry,
        .cs = USER_CODE,
        .eflags = EFLAGS_RESERVED | EFLAGS_IF,
        .user_esp = PROCESS_STACK_VA + PROCESS_STACK_PAGES * PAGE_BYTES,
        .user_ss = USER_DATA,
    };
}

static uint32_t pid_of(const struct process *process)
{
    return (uint32_t)(process - processes) + 1;
}

static void print_output(const struct process *process)
{
    kprintf("process %c wrote:\n", process->letter);
    for (uint32_t i = 0; i < process->output_bytes; i++)
        kprintf("%c", process->output[i]);
}

static void print_end(const struct process *process)
{
    char name[FAULT_NAME_BYTES];

    if (process->state == KILLED)
        kprintf("process %c killed: page fault at 0x%08x error %s\n", process->letter, process->fault_address,
                fault_name(process->fault_error, name));
    else
        kprintf("process %c exited: 0x%08x\n", process->letter, process->result);
}

static void check_end(const struct process *process)
{
    bool is_intruder = process->entry == program_d;

    if (is_intruder != (process->state == KILLED))
        fail("process %c should have %s", process->letter, is_intruder ? "been killed" : "exited");
    if (!is_intruder && !process->preemptions)
        fail("process %c was never preempted", process->letter);
}

static _Noreturn void finish(void)
{
    for (unsigned i = 0; i < PROCESSES; i++) {
        print_output(&processes[i]);
        print_end(&processes[i]);
    }
    for (unsigned i = 0; i < PROCESSES; i++)
        check_end(&processes[i]);
    kprintf("processes: all survivors were preempted\n");
    guest_exit(EXIT_OK);
}

/* The next in the round, itself last; NULL if no process can run. */
static struct process *next_runnable(void)
{
    for (unsigned step = 1; step <= PROCESSES; step++) {
        struct process *process = &processes[(pid_of(current) - 1 + step) % PROCESSES];

        if (process->state == RUNNABLE)
            return process;
    }
    return NULL;
}

static void switch_process(struct frame *frame)
{
    struct process *next = next_runnable();

    if (!next)
        finish();
    if (next == current)
        return;
    current->frame = *frame;
    *frame = next->frame;
    current = next;
    write_cr3(current->directory);
}

static void handle_timer(struct frame *frame)
{
    ticks++;
    current->preemptions++;
    switch_process(frame);
}

static void handle_page_fault(struct frame *frame)
{
    if (!is_from_ring3(frame))
        fail("page fault in the kernel at 0x%08x, eip %08x", read_cr2(), frame->eip);
    current->state = KILLED;
    current->fault_address = read_cr2();
    current->fault_error = frame->error;
    switch_process(frame);
}

static bool is_user_page(const pte_t *directory, uint32_t va)
{
    pte_t slot = directory[directory_index(va)];
    const pte_t *table = (const pte_t *)(slot & ~(uint32_t)PTE_FLAGS);
    uint32_t needed = PTE_PRESENT | PTE_USER;

    return (slot & needed) == needed && (table[table_index(va)] & needed) == needed;
}

static bool is_user_memory(const pte_t *directory, uint32_t va, uint32_t bytes)
{
    if (bytes > OUTPUT_MAX || va + bytes < va)
        return false;
    for (uint32_t i = 0; i < bytes; i++)
        if (!is_user_page(directory, va + i))
            return false;
    return true;
}

static uint32_t sys_write(uint32_t text, uint32_t bytes)
{
    uint32_t room = OUTPUT_MAX - current->output_bytes;

    if (!is_user_memory(current->directory, text, bytes))
        return SYS_BAD_ADDRESS;
    if (bytes > room)
        bytes = room;
    memcpy(current->output + current->output_bytes, (const void *)text, bytes);
    current->output_bytes += bytes;
    return bytes;
}

static void sys_exit(struct frame *frame)
{
    current->state = EXITED;
    current->result = frame->ebx;
    switch_process(frame);
}

static void handle_syscall(struct frame *frame)
{
    switch (frame->eax) {
    case SYS_WRITE:
        frame->eax = sys_write(frame->ebx, frame->ecx);
        break;
    case SYS_EXIT:
        sys_exit(frame);
        break;
    case SYS_YIELD:
        frame->eax = 0;
        switch_process(frame);
        break;
    case SYS_GETPID:
        frame->eax = pid_of(current);
        break;
    case SYS_TICKS:
        frame->eax = ticks;
        break;
    case SYS_PREEMPTIONS:
        frame->eax = current->preemptions;
        break;
    default:
        frame->eax = SYS_UNKNOWN;
    }
}

static void set_up_interrupts(void)
{
    set_kernel_stack((uint32_t)(interrupt_stack + INTERRUPT_STACK_BYTES));
    set_handler(VECTOR_PAGE_FAULT, handle_page_fault);
    set_handler(SYSCALL_VECTOR, handle_syscall);
    open_to_ring3(SYSCALL_VECTOR);
    irq_enable(PIT_IRQ, handle_timer);
    pit_start(TICKS_PER_SECOND);
}

int guest_main(const struct boot_info *info)
{
    (void)info;
    map_identity(kernel_directory);
    for (unsigned i = 0; i < PROCESSES; i++)
        create_process(&processes[i]);
    set_up_interrupts();
    paging_on(current->directory);
    kprintf("processes: %u processes, %u ticks a second\n", (uint32_t)PROCESSES, (uint32_t)TICKS_PER_SECOND);
    resume_frame(&current->frame);
}
