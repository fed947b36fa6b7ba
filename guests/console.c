/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line editor over COM1. Bytes arrive by interrupt; while there are none the CPU is halted.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/boot.h"
#include "lib/exit.h"
#include "lib/frames.h"
#include "lib/interrupts.h"
#include "lib/paging.h"
#include "lib/pic.h"
#include "lib/pit.h"
#include "lib/platform.h"
#include "lib/print.h"
#include "lib/probe.h"
#include "lib/serial.h"
#include "lib/string.h"

enum { TICKS_PER_SECOND = 100, INPUT_BYTES = 256, LINE_BYTES = 80, BACKSPACE = 0x08, DELETE = 0x7F };

/* Mapped by nobody. */
enum { FAULT_VA = 0x50000000 };

static pte_t directory[TABLE_ENTRIES] PAGE_TABLE;
static const struct boot_info *machine;
static volatile uint32_t ticks;

/*
 * Received bytes: take_input writes at input_end, the editor reads at input_start. The counts only grow;
 * they are equal when nothing is there.
 */
static volatile char input[INPUT_BYTES];
static volatile uint32_t input_start;
static volatile uint32_t input_end;

static void handle_timer(struct frame *frame)
{
    (void)frame;
    ticks++;
}

/* With interrupts off. Bytes for which there is no room stay in the UART, and with them its interrupt line stays up. */
static void take_input(void)
{
    while (input_end - input_start < INPUT_BYTES && serial_has_input())
        input[input_end++ % INPUT_BYTES] = serial_get();
}

static void handle_input(struct frame *frame)
{
    (void)frame;
    take_input();
}

/* The 8259 tells of a line that goes up, not of one that has stayed up, so ask the UART before halting. */
static char wait_for_input(void)
{
    for (;;) {
        interrupts_off();
        take_input();
        if (input_start != input_end)
            break;
        interrupts_on_and_halt();
    }
    interrupts_on();
    return input[input_start++ % INPUT_BYTES];
}

struct line {
    char text[LINE_BYTES]; /* always terminated */
    size_t length;
};

static void rub_out(struct line *line)
{
    if (!line->length)
        return;
    line->text[--line->length] = '\0';
    kprintf("\b \b");
}

static void type(struct line *line, char c)
{
    if (c < ' ' || line->length == LINE_BYTES - 1)
        return;
    line->text[line->length++] = c;
    line->text[line->length] = '\0';
    kprintf("%c", c);
}

/* A line ends with CR from a terminal, LF from a file, or both: LF after CR is no second end. */
static bool is_line_end(char c)
{
    static char previous;
    bool is_end = c == '\r' || (c == '\n' && previous != '\r');

    previous = c;
    return is_end;
}

static void read_line(struct line *line)
{
    char c;

    *line = (struct line){0};
    while (!is_line_end(c = wait_for_input())) {
        if (c == BACKSPACE || c == DELETE)
            rub_out(line);
        else
            type(line, c);
    }
    kprintf("\n");
}

static void show_memory(const char *arguments)
{
    (void)arguments;
    kprintf("memory: %u MiB, %u pages free\n", machine->memory_mib, frames_free());
}

static void show_ticks(const char *arguments)
{
    (void)arguments;
    kprintf("ticks: %u, %u a second\n", ticks, (uint32_t)TICKS_PER_SECOND);
}

static void echo(const char *arguments)
{
    kprintf("%s\n", arguments);
}

static unsigned count_present(const pte_t *table)
{
    unsigned count = 0;

    for (unsigned i = 0; i < TABLE_ENTRIES; i++)
        count += table[i] & PTE_PRESENT;
    return count;
}

/* One line for each present directory entry. */
static void show_tables(const char *arguments)
{
    (void)arguments;
    kprintf("page directory at %08x\n", read_cr3());
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        const pte_t *table = (const pte_t *)(directory[i] & ~(uint32_t)PTE_FLAGS);

        if (directory[i] & PTE_PRESENT)
            kprintf("%08x: table at %08x, %u pages\n", i * (uint32_t)LARGE_PAGE_BYTES, (uint32_t)table,
                    count_present(table));
    }
}

static void provoke_fault(const char *arguments)
{
    struct probe probe = probe_store(FAULT_VA, 1);
    char name[FAULT_NAME_BYTES];

    (void)arguments;
    if (!probe.faulted)
        fail("a store to the unmapped address %08x did not fault", (uint32_t)FAULT_VA);
    kprintf("survived a page fault at %08x, error %s\n", probe.address, fault_name(probe.error, name));
}

static _Noreturn void quit(const char *arguments)
{
    (void)arguments;
    kprintf("bye\n");
    guest_exit(EXIT_OK);
}

static void show_help(const char *arguments);

static const struct command {
    const char *name;
    const char *help;
    void (*run)(const char *arguments);
} commands[] = {
    {"help", "list the commands", show_help},
    {"echo", "print the arguments", echo},
    {"mem", "show the memory size and what is free", show_memory},
    {"ticks", "show the timer's count", show_ticks},
    {"tables", "show the page directory", show_tables},
    {"fault", "store to an unmapped address and survive", provoke_fault},
    {"quit", "end the guest", quit},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static void show_help(const char *arguments)
{
    (void)arguments;
    for (unsigned i = 0; i < COMMANDS; i++)
        kprintf("%s: %s\n", commands[i].name, commands[i].help);
}

/* Ends the first word of the line; returns the rest, without the blanks before it. */
static char *split_first_word(char *text)
{
    while (*text && *text != ' ')
        text++;
    while (*text == ' ')
        *text++ = '\0';
    return text;
}

static void run_line(struct line *line)
{
    const char *arguments = split_first_word(line->text);

    for (unsigned i = 0; i < COMMANDS; i++)
        if (!strcmp(line->text, commands[i].name)) {
            commands[i].run(arguments);
            return;
        }
    if (*line->text)
        kprintf("%s: no such command; try help\n", line->text);
}

static void set_up(const struct boot_info *info)
{
    machine = info;
    probe_init();
    map_identity(directory);
    paging_on(directory);
    irq_enable(PIT_IRQ, handle_timer);
    pit_start(TICKS_PER_SECOND);
    irq_enable(COM1_IRQ, handle_input);
    serial_enable_receive_interrupt();
    interrupts_on();
}

int guest_main(const struct boot_info *info)
{
    struct line line;

    set_up(info);
    for (;;) {
        kprintf("> ");
        read_line(&line);
        run_line(&line);
    }
}
