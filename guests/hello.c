/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The smallest guest: says hello, tells what the loader told it, and exits. */
#include "lib/boot.h"
#include "lib/exit.h"
#include "lib/print.h"

int guest_main(const struct boot_info *info)
{
    kprintf("Hello from emu guest\n");
    kprintf("memory: %u MiB\n", info->memory_mib);
    kprintf("modules: %u\n", info->module_count);
    kprintf("arguments: %s\n", info->arguments);
    return EXIT_OK;
}
