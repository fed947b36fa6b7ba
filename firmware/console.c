/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "console.h"

void print_character(u8 character)
{
    while (!(in8(PORT_COM1_LINE_STATUS) & COM1_TRANSMITTER_EMPTY))
        continue;
    out8(PORT_COM1, character);
}

void print(const char *text)
{
    for (; *text; text++)
        print_character((u8)*text);
}

void print_hex(u32 value, u32 digits)
{
    while (digits--)
        print_character((u8)"0123456789abcdef"[value >> 4 * digits & 15]);
}

_Noreturn void fail(const char *message)
{
    print("emu firmware: ");
    print(message);
    print("\n");
    stop();
}
