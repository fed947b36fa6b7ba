/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The console: kprintf, and a line of input at a time.
 *
 * What arrives is kept until somebody reads, and shown then: so a script that sends commands gives the text that one would see who waits for each
 * prompt. Control C ends the program in the foreground at once, and what was typed ahead goes with it; without one it gives up the line that is being
 * typed. One that stands right behind a command is for what the command starts.
 */
#include "console.h"

#include <stdarg.h>

#include "../../lib/platform.h"
#include "../../lib/serial.h"
#include "inode.h"
#include "kernel.h"
#include "line.h"
#include "process.h"
#include "schedule.h"

enum { CONTROL_C = 3, AHEAD_BYTES = 256 };

static unsigned taken;   /* of the complete line, by its reader */
static bool is_complete;
static bool is_awaited;  /* somebody sleeps for a line */
static int foreground;   /* pid, 0: none */
static char ahead[AHEAD_BYTES]; /* what nobody has read yet: a ring */
static unsigned ahead_first, ahead_count;

static void put(char c)
{
    if (c == '\n')
        serial_put('\r');
    serial_put(c);
}

void console_write(const char *text, size_t bytes)
{
    while (bytes--)
        put(*text++);
}

/* Whether there was a program to end. */
static bool end_foreground(void)
{
    struct process *process = foreground ? process_with_pid(foreground) : NULL;

    if (!process)
        return false;
    process_kill_family(process);
    put('\n');
    return true;
}

static char next_ahead(void)
{
    char c = ahead[ahead_first];

    ahead_first = (ahead_first + 1) % AHEAD_BYTES;
    ahead_count--;
    return c;
}

/* Makes a line of what arrived, as far as it goes. */
static void take_ahead(void)
{
    while (!is_complete && ahead_count) {
        char c = next_ahead();

        if (c == CONTROL_C) {
            line_clear();
            c = '\n';
        }
        is_complete = line_take(c);
    }
    if (is_complete)
        wake_all(line_text);
}

/* Takes from the UART what there is room for; the rest waits there. */
static void on_interrupt(void)
{
    while (ahead_count < AHEAD_BYTES && serial_has_input()) {
        char c = serial_get();

        if (c == CONTROL_C && end_foreground())
            ahead_count = 0;
        else
            ahead[(ahead_first + ahead_count++) % AHEAD_BYTES] = c;
    }
    if (is_awaited)
        take_ahead();
}

void console_init(void)
{
    irq_install(COM1_IRQ, on_interrupt);
    serial_enable_receive_interrupt();
}

void console_set_foreground(int pid)
{
    foreground = pid;
    if (pid && ahead_count && ahead[ahead_first] == CONTROL_C) {
        next_ahead();
        end_foreground();
    }
}

static void begin_line(void)
{
    line_clear();
    taken = 0;
    is_complete = false;
}

intptr_t console_read(char *text, size_t bytes)
{
    size_t done = 0;

    for (take_ahead(); !is_complete; is_awaited = false) {
        if (current->is_killed)
            return -EAGAIN;
        is_awaited = true;
        on_interrupt(); /* what waited in the UART for room */
        if (!is_complete)
            sleep_on(line_text);
    }
    while (done < bytes && taken < line_length)
        text[done++] = line_text[taken++];
    if (taken == line_length)
        begin_line();
    return done;
}

/* ---- kprintf ---- */

static void put_number(word value, unsigned base, unsigned width, char padding, bool is_negative)
{
    char digits[24];
    unsigned count = 0;

    do
        digits[count++] = "0123456789abcdef"[value % base];
    while ((value /= base) != 0);
    if (is_negative)
        digits[count++] = '-';
    while (width > count) {
        put(padding);
        width--;
    }
    while (count)
        put(digits[--count]);
}

static void put_text(const char *text, unsigned width)
{
    for (; *text; text++, width -= width != 0)
        put(*text);
    while (width--)
        put(' ');
}

static void put_item(char kind, unsigned width, char padding, va_list *arguments)
{
    int number;

    switch (kind) {
    case 'd':
        number = va_arg(*arguments, int);
        put_number(number < 0 ? -(word)number : (word)number, 10, width, padding, number < 0);
        break;
    case 'u':
        put_number(va_arg(*arguments, unsigned), 10, width, padding, false);
        break;
    case 'x':
        put_number(va_arg(*arguments, unsigned), 16, width, padding, false);
        break;
    case 'p':
        put_number(va_arg(*arguments, word), 16, 2 * sizeof(word), '0', false);
        break;
    case 'c':
        put((char)va_arg(*arguments, int));
        break;
    case 's':
        put_text(va_arg(*arguments, const char *), width);
        break;
    default:
        put(kind);
    }
}

static void vkprintf(const char *format, va_list *arguments)
{
    for (; *format; format++) {
        unsigned width = 0;
        char padding = ' ';

        if (*format != '%') {
            put(*format);
            continue;
        }
        if (*++format == '0')
            padding = '0';
        for (; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + (*format - '0');
        if (!*format)
            return;
        put_item(*format, width, padding, arguments);
    }
}

void kprintf(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vkprintf(format, &arguments);
    va_end(arguments);
}

void announce(const char *format, ...)
{
    va_list arguments;

    if (argument("quiet"))
        return;
    va_start(arguments, format);
    vkprintf(format, &arguments);
    va_end(arguments);
}

void panic(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    put_text("panic: ", 0);
    vkprintf(format, &arguments);
    va_end(arguments);
    put('\n');
    power_off(PANIC_STATUS);
}
