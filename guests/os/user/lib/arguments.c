/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "system.h"

bool parse_number(const char *text, uint32_t *number)
{
    uint32_t value = 0;

    if (*text < '0' || *text > '9')
        return false;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (value > (UINT32_MAX - 9) / 10)
            return false;
        value = value * 10 + (*text - '0');
    }
    unsigned shift = *text == 'k' ? 10 : *text == 'm' ? 20 : 0;

    if (shift && value > UINT32_MAX >> shift)
        return false;
    *number = value << shift;
    return text[shift != 0] == 0;
}

static const struct option *find(const char *word, const struct option options[], unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        size_t length = strlen(options[i].key);

        if (strncmp(word, options[i].key, length) == 0 && word[length] == '=')
            return &options[i];
    }
    return NULL;
}

void parse_arguments(int argc, char **argv, const struct option options[], unsigned count)
{
    for (int i = 1; i < argc; i++) {
        const struct option *option = find(argv[i], options, count);
        const char *value = option ? argv[i] + strlen(option->key) + 1 : NULL;

        if (option && option->text) {
            *option->text = value;
            continue;
        }
        if (option && parse_number(value, option->number))
            continue;
        print("%s: '%s' is not understood; known are", argv[0], argv[i]);
        for (unsigned k = 0; k < count; k++)
            print(" %s=%s", options[k].key, options[k].text ? "TEXT" : "NUMBER");
        die("");
    }
}
