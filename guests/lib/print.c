/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "print.h"

#include <stdint.h>

#include "serial.h"
#include "string.h"

struct padding {
    unsigned width;
    char fill;
};

static void put_string(const char *text)
{
    while (*text)
        serial_put(*text++);
}

static void put_padded(const char *text, struct padding padding)
{
    for (unsigned length = strlen(text); length < padding.width; length++)
        serial_put(padding.fill);
    put_string(text);
}

static void put_number(uint32_t value, unsigned base, struct padding padding)
{
    char digits[11]; /* 4294967295 and the terminator */
    char *next = digits + sizeof digits;

    *--next = '\0';
    do
        *--next = "0123456789abcdef"[value % base];
    while (value /= base);
    put_padded(next, padding);
}

static void put_signed(int32_t value, struct padding padding)
{
    if (value < 0)
        serial_put('-');
    put_number(value < 0 ? -(uint32_t)value : (uint32_t)value, 10, padding);
}

/* Reads the flag and width after a '%'; returns the address of the conversion letter. */
static const char *parse_padding(const char *format, struct padding *padding)
{
    padding->fill = *format == '0' ? '0' : ' ';
    for (padding->width = 0; *format >= '0' && *format <= '9'; format++)
        padding->width = padding->width * 10 + (unsigned)(*format - '0');
    return format;
}

void kvprintf(const char *format, va_list arguments)
{
    struct padding padding;

    for (; *format; format++) {
        if (*format != '%') {
            serial_put(*format);
            continue;
        }
        format = parse_padding(format + 1, &padding);
        switch (*format) {
        case 'c':
            serial_put((char)va_arg(arguments, int));
            break;
        case 's':
            put_padded(va_arg(arguments, const char *), padding);
            break;
        case 'd':
            put_signed(va_arg(arguments, int32_t), padding);
            break;
        case 'u':
            put_number(va_arg(arguments, uint32_t), 10, padding);
            break;
        case 'x':
            put_number(va_arg(arguments, uint32_t), 16, padding);
            break;
        default:
            serial_put(*format);
        }
    }
}

void kprintf(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    kvprintf(format, arguments);
    va_end(arguments);
}
