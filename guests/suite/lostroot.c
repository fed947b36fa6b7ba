/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A root where there is no memory: nothing is mapped, not even the handler of the fault. The expected end is a triple fault. */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"

#define NOWHERE 0x7F000000u /* beyond any memory that the suite is given, below the devices */

void suite_main(void)
{
    memory_reset();
    say("loading a root that is nowhere\n");
    write_cr3(NOWHERE);
    say("FAIL lostroot: expected a triple fault, seen this line\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}
