/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a multiboot 1 loader leaves in memory (Multiboot Specification 0.6.96, section 3.3). */
#ifndef MULTIBOOT_H
#define MULTIBOOT_H

#include <stdint.h>

struct multiboot_info {
    uint32_t flags;           /* which of the fields below hold something: MULTIBOOT_INFO_* */
    uint32_t mem_lower_kib;   /* from address 0 */
    uint32_t mem_upper_kib;   /* from 1 MiB to the first hole */
    uint32_t boot_device;
    uint32_t cmdline;         /* address of a string */
    uint32_t module_count;
    uint32_t modules;         /* address of an array of multiboot_module */
    uint32_t symbols[4];
    uint32_t mmap_bytes;
    uint32_t mmap;            /* address of the first multiboot_memory */
};

struct multiboot_module {
    uint32_t start;
    uint32_t end;             /* the first byte after it */
    uint32_t name;            /* address of a string */
    uint32_t reserved;
};

struct multiboot_memory {
    uint32_t entry_bytes;     /* of what follows this field */
    uint64_t base;
    uint64_t bytes;
    uint32_t type;            /* MULTIBOOT_MEMORY_AVAILABLE, or anything else for "keep off" */
} __attribute__((packed));

#endif
