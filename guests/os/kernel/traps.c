/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exceptions, interrupts and system calls.
 *
 * Every gate is an interrupt gate: the kernel runs with interrupts off, and takes them only while it waits (schedule.c).
 */
#include "traps.h"

#include "../../lib/platform.h"
#include "../../lib/ports.h"
#include "../../lib/string.h"
#include "kernel.h"
#include "process.h"
#include "processor.h"
#include "schedule.h"
#include "space.h"
#include "system_calls.h"

enum { IRQS = 16, GATE_BYTES = 2 * sizeof(word), GATE = 0x8E, GATE_OF_USER = 0xEE, ENTRY_BYTES = 16 };
enum { TASK_BYTES = 104, STACK_AT_32 = 4, STACK_AT_64 = 4, BITMAP_AT = 102 };
enum { END_OF_INTERRUPT = 0x20, ICW1 = 0x11, ICW4 = 0x01 };

extern const uint8_t trap_entries[];
extern const uint8_t user_copy_end[], user_copy_failed[];

static void (*handlers[IRQS])(void);
static uint8_t idt[VECTORS][GATE_BYTES] __attribute__((aligned(16)));
static uint8_t task_state[TASK_BYTES] __attribute__((aligned(16)));

/* 32 bits: flat code and data. 64 bits: the same with L in the code segments; the task state takes two entries. */
static uint64_t gdt[] = {
    0,
#if PAGING_LEVELS == 4
    0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00AFFB000000FFFF, 0x00CFF3000000FFFF, 0, 0,
#else
    0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF, 0,
#endif
};

struct table_pointer {
    uint16_t limit;
    word base;
} __attribute__((packed));

static void set_gate(unsigned vector, unsigned type)
{
    word entry = (word)&trap_entries[vector * ENTRY_BYTES];
    uint32_t low = KERNEL_CODE << 16 | (entry & 0xFFFF);
    uint32_t high = (entry & 0xFFFF0000) | type << 8;

    memcpy(&idt[vector][0], &low, 4);
    memcpy(&idt[vector][4], &high, 4);
#if PAGING_LEVELS == 4
    uint32_t top = entry >> 32;

    memcpy(&idt[vector][8], &top, 4);
#endif
}

static void load_tables(void)
{
    word task = (word)task_state;
    struct table_pointer gdt_pointer = {sizeof gdt - 1, (word)gdt};
    struct table_pointer idt_pointer = {sizeof idt - 1, (word)idt};
    uint16_t bitmap = TASK_BYTES;

    memcpy(&task_state[BITMAP_AT], &bitmap, 2);
#if PAGING_LEVELS != 4
    uint32_t stack_segment = KERNEL_DATA;

    memcpy(&task_state[8], &stack_segment, 4);
#else
    gdt[TASK_STATE / 8 + 1] = task >> 32;
#endif
    gdt[TASK_STATE / 8] = (TASK_BYTES - 1) | (uint64_t)(task & 0xFFFFFF) << 16 | 0x89ull << 40 | (uint64_t)(task >> 24 & 0xFF) << 56;
    __asm__ volatile("lgdt %0\n\tlidt %1" : : "m"(gdt_pointer), "m"(idt_pointer) : "memory");
#if PAGING_LEVELS == 4
    __asm__ volatile("pushq %0\n\tpushq $1f\n\tlretq\n1:" : : "i"(KERNEL_CODE) : "memory");
    __asm__ volatile("mov %0, %%ss" : : "r"(KERNEL_DATA));
#else
    __asm__ volatile("ljmp %0, $1f\n1:\n\tmov %1, %%ss" : : "i"(KERNEL_CODE), "r"(KERNEL_DATA) : "memory");
#endif
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %1, %%fs\n\tmov %1, %%gs" : : "r"(USER_DATA), "r"(0));
    __asm__ volatile("ltr %w0" : : "r"(TASK_STATE));
}

static void pic_init(void)
{
    outb(PIC_MASTER_COMMAND_PORT, ICW1);
    outb(PIC_SLAVE_COMMAND_PORT, ICW1);
    outb(PIC_MASTER_DATA_PORT, VECTOR_IRQ);
    outb(PIC_SLAVE_DATA_PORT, VECTOR_IRQ + 8);
    outb(PIC_MASTER_DATA_PORT, 1 << PIC_CASCADE_IRQ);
    outb(PIC_SLAVE_DATA_PORT, PIC_CASCADE_IRQ);
    outb(PIC_MASTER_DATA_PORT, ICW4);
    outb(PIC_SLAVE_DATA_PORT, ICW4);
    outb(PIC_MASTER_DATA_PORT, 0xFF & ~(1 << PIC_CASCADE_IRQ));
    outb(PIC_SLAVE_DATA_PORT, 0xFF);
}

void traps_init(void)
{
    for (unsigned vector = 0; vector < VECTORS; vector++)
        set_gate(vector, vector == SYSTEM_CALL_VECTOR ? GATE_OF_USER : GATE);
    load_tables();
    pic_init();
}

void set_kernel_stack(void *top)
{
    memcpy(&task_state[STACK_AT_32], &top, sizeof top);
}

void irq_install(unsigned irq, void (*handler)(void))
{
    uint16_t port = irq < 8 ? PIC_MASTER_DATA_PORT : PIC_SLAVE_DATA_PORT;

    handlers[irq] = handler;
    outb(port, inb(port) & ~(1 << (irq & 7)));
}

static void on_irq(unsigned irq)
{
    if (handlers[irq])
        handlers[irq]();
    if (irq >= 8)
        outb(PIC_SLAVE_COMMAND_PORT, END_OF_INTERRUPT);
    outb(PIC_MASTER_COMMAND_PORT, END_OF_INTERRUPT);
}

static void kill_for_fault(const char *what, word va, const struct registers *registers)
{
    kprintf("%d %s killed: %s at %p, ip %p\n", current->pid, current->name, what, (void *)va, (void *)registers->ip);
    process_exit(KILLED + SIGNAL_FAULT);
}

static void on_page_fault(struct registers *registers)
{
    word va = read_cr2();
    word ip = registers->ip;

    if (va < USER_END && current && current->space && space_fault(current->space, va, registers->error & FAULT_WRITE))
        return;
    if (from_user(registers) && current->is_killed)
        return; /* before_user ends it: a fault that is not served is no fault of its own then */
    if (from_user(registers))
        kill_for_fault("page fault", va, registers);
    if (ip < (word)user_copy || ip >= (word)user_copy_end)
        panic("page fault at %p, error %x, ip %p", (void *)va, (unsigned)registers->error, (void *)ip);
    registers->ip = (word)user_copy_failed;
}

void on_trap(struct registers *registers)
{
    if (registers->vector == SYSTEM_CALL_VECTOR)
        system_call(registers);
    else if (registers->vector == VECTOR_PAGE_FAULT)
        on_page_fault(registers);
    else if (registers->vector >= VECTOR_IRQ)
        on_irq(registers->vector - VECTOR_IRQ);
    else if (from_user(registers))
        kill_for_fault("exception", registers->vector, registers);
    else
        panic("exception %d, error %x, ip %p", (int)registers->vector, (unsigned)registers->error, (void *)registers->ip);
    if (from_user(registers))
        before_user();
}
