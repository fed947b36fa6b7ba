/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the loader told, copied out of its memory so that the frame allocator may hand that memory out. */
#ifndef BOOT_H
#define BOOT_H

#include <stdint.h>

enum { ARGUMENTS_MAX = 256 };

struct boot_info {
    uint32_t memory_mib;           /* all RAM, rounded up to whole MiB */
    uint32_t usable_end;           /* address: RAM is usable from 1 MiB to here */
    uint32_t used_end;             /* address after the kernel and its modules */
    uint32_t module_count;
    char arguments[ARGUMENTS_MAX]; /* the command line without its first word, the kernel's name */
};

/* Each guest defines this; what it returns becomes its exit status. */
int guest_main(const struct boot_info *info);

#endif
