/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The root that CR3 names is given to the balloon: from the next fetch on nothing is mapped, since the page that comes in its place is
 * zero. The expected end is a triple fault, of this VM alone. With PAE the processor may have the four pointers until CR3 is loaded again
 * (Intel SDM vol. 3, 4.4.1), as shadow paging has; so it is loaded again.
 */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"

enum { PORT = 0x5670, MAGIC = 0x456C6D6F, START = 0, LOCK = 2, BASIC = 2 };

static uint32_t call(uint32_t command, uint32_t first)
{
    uint32_t status = MAGIC;

    __asm__ volatile("inl %%dx, %%eax" : "+a"(status), "+c"(command), "+b"(first) : "d"(PORT), "S"(0) : "memory");
    return status;
}

void suite_main(void)
{
    memory_reset();
    say("giving the root away\n");
    call(START, BASIC);
    call(LOCK, (word)space >> 12);
    __asm__ volatile("jmp 1f\n1:");
    say("running on pointers that the processor keeps\n");
    write_cr3((word)space);
    __asm__ volatile("jmp 1f\n1:");
    say("FAIL balloonroot: expected a triple fault, seen this line\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}
