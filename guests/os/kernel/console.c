/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The console: kprintf, and a line of input at a time with echo, backspace, control C to give the line up and control D to end it. */
#include "console.h"

#include <stdarg.h>

#include "../../lib/platform.h"
#include "../../lib/serial.h"
#include "inode.h"
#include "kernel.h"
#include "process.h"
#include "schedule.h"

enum { LINE_BYTES = 256, CONTROL_C = 3, CONTROL_D = 4, BACKSPACE = 8, DELETE = 127 };

static char line[LINE_BYTES]; /* being typed, or being read once it is complete */
static unsigned typed, taken;
static bool is_complete;

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

static void end_line(char c)
{
    put('\n');
    if (c)
        line[typed++] = c;
    is_complete = true;
    wake_all(line);
}

static void on_character(char c)
{
    if (is_complete) /* typed ahead of a program that does not read: lost */
        return;
    if (c == '\r' || c == '\n') {
        end_line('\n');
    } else if (c == CONTROL_D) {
        end_line(0);
    } else if (c == CONTROL_C) {
        typed = 0;
        end_line('\n');
    } else if (c == BACKSPACE || c == DELETE) {
        if (typed) {
            typed--;
            console_write("\b \b", 3);
        }
    } else if (c >= ' ' && typed < LINE_BYTES - 1) {
        line[typed++] = c;
        put(c);
    }
}

static void on_interrupt(void)
{
    while (!is_complete && serial_has_input())
        on_character(serial_get());
}

void console_init(void)
{
    irq_install(COM1_IRQ, on_interrupt);
    serial_enable_receive_interrupt();
}

static void begin_line(void)
{
    typed = taken = 0;
    is_complete = false;
    on_interrupt(); /* what waited in the UART */
}

intptr_t console_read(char *text, size_t bytes)
{
    size_t done = 0;

    while (!is_complete) {
        if (current->is_killed)
            return -EAGAIN;
        sleep_on(line);
    }
    while (done < bytes && taken < typed)
        text[done++] = line[taken++];
    if (taken == typed)
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
