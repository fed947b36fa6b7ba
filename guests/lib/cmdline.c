/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmdline.h"

#include <stddef.h>

#include "exit.h"
#include "print.h"
#include "string.h"

static const char *words = "";

void cmdline_init(const char *arguments)
{
    words = arguments;
}

static const char *skip_blanks(const char *text)
{
    while (*text == ' ')
        text++;
    return text;
}

static const char *skip_word(const char *text)
{
    while (*text && *text != ' ')
        text++;
    return text;
}

/* The address of the value of KEY=value, which ends at a blank or the string's end; NULL where absent. */
static const char *find(const char *key)
{
    size_t length = strlen(key);

    for (const char *word = skip_blanks(words); *word; word = skip_blanks(skip_word(word)))
        if (!strncmp(word, key, length) && word[length] == '=')
            return word + length + 1;
    return NULL;
}

const char *cmdline_text(const char *key, const char *otherwise)
{
    static char value[64];
    const char *found = find(key);
    size_t length;

    if (!found)
        return otherwise;
    length = (size_t)(skip_word(found) - found);
    if (length >= sizeof value)
        length = sizeof value - 1;
    memcpy(value, found, length);
    value[length] = '\0';
    return value;
}

bool cmdline_is(const char *key, const char *value)
{
    return !strcmp(cmdline_text(key, ""), value);
}

static _Noreturn void refuse(const char *key, const char *text)
{
    kprintf("argument %s=%s: expected a number from 0 to 4294967295\n", key, text);
    guest_exit(EXIT_BAD_ARGUMENTS);
}

/* Not a digit in any base: 255. */
static unsigned digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    return 255;
}

uint32_t cmdline_number(const char *key, uint32_t otherwise)
{
    const char *text = cmdline_text(key, NULL);
    const char *digits = text;
    unsigned base = 10;
    uint32_t value = 0;

    if (!text)
        return otherwise;
    if (!strncmp(text, "0x", 2)) {
        base = 16;
        digits += 2;
    }
    if (!*digits)
        refuse(key, text);
    for (; *digits; digits++) {
        unsigned digit = digit_value(*digits);

        if (digit >= base || value > (UINT32_MAX - digit) / base)
            refuse(key, text);
        value = value * base + digit;
    }
    return value;
}
