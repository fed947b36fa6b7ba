/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A root where there is no memory: nothing is mapped, not even the handler of the fault. The expected end is a triple fault; under PAE the load
 * of CR3 is #GP, since directory pointers that read as ones have reserved bits. */
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
