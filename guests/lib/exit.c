/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "exit.h"

#include <stdarg.h>

#include "platform.h"
#include "ports.h"
#include "print.h"

void guest_exit(int status)
{
    outl(EXIT_PORT, (uint32_t)status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void fail(const char *format, ...)
{
    va_list arguments;

    kprintf("FAILED: ");
    va_start(arguments, format);
    kvprintf(format, arguments);
    va_end(arguments);
    kprintf("\n");
    guest_exit(EXIT_FAILED);
}
