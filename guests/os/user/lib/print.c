/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output to fd 1, a line at a time, so that lines of several programs do not mix. */
#include "system.h"

enum { BUFFER_BYTES = 256 };

static char buffer[BUFFER_BYTES];
static unsigned used;

void print_flush(void)
{
    if (used)
        write_all(1, buffer, used);
    used = 0;
}

static void put(char c)
{
    buffer[used++] = c;
    if (c == '\n' || used == BUFFER_BYTES)
        print_flush();
}

/* Division of 64 bits, which a 32-bit compiler would call a library for. */
static uint64_t divide(uint64_t value, unsigned base, unsigned *remainder)
{
    uint64_t quotient = 0;
    uint64_t rest = 0;

    for (int bit = 63; bit >= 0; bit--) {
        rest = rest << 1 | (value >> bit & 1);
        if (rest >= base) {
            rest -= base;
            quotient |= 1ull << bit;
        }
    }
    *remainder = rest;
    return quotient;
}

static void put_number(uint64_t value, unsigned base, unsigned width, char padding, bool is_negative)
{
    char digits[24];
    unsigned count = 0;

    do {
        unsigned digit;

        value = value >> 32 ? divide(value, base, &digit) : (digit = (uint32_t)value % base, (uint32_t)value / base);
        digits[count++] = "0123456789abcdef"[digit];
    } while (value);
    if (is_negative)
        digits[count++] = '-';
    for (; width > count; width--)
        put(padding);
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
    if (kind == 'd') {
        int number = va_arg(*arguments, int);

        put_number(number < 0 ? 0u - (unsigned)number : (unsigned)number, 10, width, padding, number < 0);
    } else if (kind == 'u' || kind == 'x') {
        put_number(va_arg(*arguments, unsigned), kind == 'u' ? 10 : 16, width, padding, false);
    } else if (kind == 'U') {
        put_number(va_arg(*arguments, uint64_t), 10, width, padding, false);
    } else if (kind == 's') {
        put_text(va_arg(*arguments, const char *), width);
    } else if (kind == 'c') {
        put((char)va_arg(*arguments, int));
    } else {
        put(kind);
    }
}

static void vprint(const char *format, va_list *arguments)
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

void print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprint(format, &arguments);
    va_end(arguments);
}

void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprint(format, &arguments);
    va_end(arguments);
    put('\n');
    exit(1);
}
