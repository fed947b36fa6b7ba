/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "traps.h"

#include "../../lib/cmdline.h"
#include "../../lib/exit.h"
#include "../../lib/ports.h"
#include "../../lib/platform.h"
#include "../../lib/serial.h"
#include "../../lib/string.h"
#include "cpu.h"
#include "memory.h"
#include "report.h"

enum { STUB_BYTES = 16, TRAP_STACK_BYTES = 16384 };
enum { COMMAND_LINE_OFFSET = 16, ARGUMENTS_BYTES = 128 }; /* in the multiboot information; longer lines are cut */
enum { GATE_PRESENT = 0x80, GATE_INTERRUPT = 0x0E };

extern char trap_stubs[];
extern const char user_blob[], user_read[], user_write[], user_fetch[];
extern word probe_value, user_entry, user_stack, user_argument;
bool guarded_call(void (*body)(word), word argument);
void enter_user(word unused);

bool (*trap_hook)(struct frame *frame);

static struct outcome last;
static char trap_stack[TRAP_STACK_BYTES] __attribute__((aligned(4096)));

#define FLAT(access, flags) (0x000F00000000FFFFull | (uint64_t)(access) << 40 | (uint64_t)(flags) << 52)

/* The accessed bit is set from the start: the CPU then never writes here for code and data. */
static const uint64_t flat_segments[] = {
    0,
#if PAGING_LEVELS == 4
    FLAT(0x9B, 0xA),
#else
    FLAT(0x9B, 0xC),
#endif
    FLAT(0x93, 0xC), FLAT(0xFB, 0xC), FLAT(0xF3, 0xC), FLAT(0xFB, 0xA), FLAT(0x9B, 0xC),
};

uint64_t gdt[GDT_SLOTS] __attribute__((aligned(4096)));
uint64_t idt[VECTORS * GATE_WORDS] __attribute__((aligned(4096)));
uint32_t task_state[26] __attribute__((aligned(4096)));

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xFFFF) | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 0xF) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

void load_gdt(const void *table, unsigned bytes)
{
    struct table_register gdtr = {(uint16_t)(bytes - 1), (word)table};

    __asm__ volatile("lgdt %0" : : "m"(gdtr) : "memory");
}

void load_idt(const void *table, unsigned bytes)
{
    struct table_register idtr = {(uint16_t)(bytes - 1), (word)table};

    __asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
}

void set_gate(unsigned vector, word entry, unsigned ring)
{
    uint64_t *gate = &idt[vector * GATE_WORDS];

    gate[0] = (entry & 0xFFFF) | (uint64_t)KERNEL_CODE << 16 |
              (uint64_t)(GATE_PRESENT | ring << 5 | GATE_INTERRUPT) << 40 | (uint64_t)(entry >> 16 & 0xFFFF) << 48;
#if PAGING_LEVELS == 4
    gate[1] = entry >> 32;
#endif
}

word stub_of(unsigned vector)
{
    return (word)trap_stubs + (word)vector * STUB_BYTES;
}

word default_trap_stack(void)
{
    return (word)trap_stack + sizeof trap_stack;
}

/* In both layouts the stack for ring 0 is the second word of the segment; 32-bit ones have its selector next. */
void set_trap_stack(word top)
{
    task_state[1] = (uint32_t)top;
#if PAGING_LEVELS == 4
    task_state[2] = (uint32_t)(top >> 32);
#else
    task_state[2] = KERNEL_DATA;
#endif
    task_state[25] = TASK_BYTES << 16; /* no I/O permission bitmap */
}

static void load_segments(void)
{
    memcpy(gdt, flat_segments, sizeof flat_segments);
    gdt[TASK_STATE / 8] = descriptor((uint32_t)(word)task_state, TASK_BYTES - 1, 0x89, 0);
    load_gdt(gdt, sizeof gdt);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %1, %%fs; mov %1, %%gs"
                     :
                     : "r"(KERNEL_DATA), "r"(0));
#if PAGING_LEVELS == 4
    __asm__ volatile("pushq %0; pushq $1f; lretq; 1:" : : "i"(KERNEL_CODE) : "memory");
#else
    __asm__ volatile("ljmp %0, $1f; 1:" : : "i"(KERNEL_CODE));
#endif
    __asm__ volatile("ltr %w0" : : "r"(TASK_STATE));
}

void traps_init(void)
{
    outb(PIC_MASTER_DATA_PORT, 0xFF);
    outb(PIC_SLAVE_DATA_PORT, 0xFF);
    set_trap_stack(default_trap_stack());
    load_segments();
    traps_reset();
}

void traps_reset(void)
{
    trap_hook = NULL;
    user_flags = FLAG_FIXED;
    user_selector = USER_CODE;
    memcpy(gdt, flat_segments, sizeof flat_segments);
    set_trap_stack(default_trap_stack());
    for (unsigned vector = 0; vector < VECTORS; vector++)
        set_gate(vector, stub_of(vector), vector == USER_RETURN_VECTOR || vector == VECTOR_BREAKPOINT ? 3 : 0);
    load_gdt(gdt, sizeof gdt);
    load_idt(idt, sizeof idt);
}

static void record(const struct frame *frame)
{
    last.vector = frame->vector == USER_RETURN_VECTOR ? NO_TRAP : (unsigned)frame->vector;
    last.error = frame->error;
    last.address = frame->vector == VECTOR_PAGE_FAULT ? read_cr2() : 0;
    last.ip = frame->ip;
    last.cs = frame->cs;
    last.flags = frame->flags;
    last.value = frame->ax;
    last.frame = *frame;
}

/* Called by traps.S. */
void trap_dispatch(struct frame *frame)
{
    if (trap_hook && trap_hook(frame))
        return;
    record(frame);
    if (!landing) {
        say("trap outside any case: vector %u, error %llx, at %llx, address %llx\n", (uint32_t)frame->vector,
            (unsigned long long)frame->error, (unsigned long long)frame->ip, (unsigned long long)read_cr2());
        guest_exit(EXIT_UNEXPECTED);
    }
    land();
}

struct outcome try(void (*body)(word), word argument)
{
    return guarded_call(body, argument) ? last : (struct outcome){.vector = NO_TRAP};
}

struct outcome try_read(word va)
{
    struct outcome outcome = try(probe_read, va);

    outcome.value = probe_value;
    return outcome;
}

struct outcome try_write(word va)
{
    return try(probe_write, va);
}

struct outcome try_fetch(word va)
{
    return try(probe_fetch, va);
}

struct outcome try_user(word entry, word argument)
{
    user_entry = entry;
    user_stack = USER_STACK_VA + PAGE_BYTES;
    user_argument = argument;
    return try(enter_user, 0);
}

static word in_user_page(const char *label)
{
    return USER_CODE_VA + (word)(label - user_blob);
}

word user_probe_read(void)
{
    return in_user_page(user_read);
}

word user_probe_write(void)
{
    return in_user_page(user_write);
}

word user_probe_fetch(void)
{
    return in_user_page(user_fetch);
}

struct outcome try_user_read(word va)
{
    return try_user(user_probe_read(), va);
}

struct outcome try_user_write(word va)
{
    return try_user(user_probe_write(), va);
}

struct outcome try_user_fetch(word va)
{
    return try_user(user_probe_fetch(), va);
}

void expect_trap(const char *what, struct outcome outcome, unsigned vector, word error)
{
    expect(what, vector, outcome.vector);
    expect(what, error, outcome.error);
}

void expect_none(const char *what, struct outcome outcome)
{
    expect(what, NO_TRAP, outcome.vector);
}

void expect_page_fault(const char *what, struct outcome outcome, word address, word error)
{
    expect_trap(what, outcome, VECTOR_PAGE_FAULT, error);
    expect(what, address, outcome.address);
}

/* Loaders begin the command line with the image's name, and leave it where frames are taken from. */
static void read_arguments(uint32_t multiboot_info)
{
    static char arguments[ARGUMENTS_BYTES];
    const char *text = "";

    if (*at(multiboot_info) & MULTIBOOT_INFO_CMDLINE)
        text = (const char *)(word)*at(multiboot_info + COMMAND_LINE_OFFSET);
    while (*text && *text != ' ')
        text++;
    for (size_t i = 0; text[i] && i < sizeof arguments - 1; i++)
        arguments[i] = text[i];
    cmdline_init(arguments);
}

/* Called by start.S. */
void suite_start(uint32_t multiboot_info)
{
    serial_init();
    read_arguments(multiboot_info);
    traps_init();
    memory_init(multiboot_info);
    suite_main();
}
