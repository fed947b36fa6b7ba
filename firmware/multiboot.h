/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a kernel is handed (Multiboot Specification 0.6.96, section 3.3). */
#ifndef FIRMWARE_MULTIBOOT_H
#define FIRMWARE_MULTIBOOT_H

#include "io.h"

#define MULTIBOOT_LOADER_MAGIC 0x2badb002 /* in EAX when the kernel starts */

#define MULTIBOOT_HAS_MEMORY (1u << 0)
#define MULTIBOOT_HAS_COMMAND_LINE (1u << 2)
#define MULTIBOOT_HAS_MODULES (1u << 3)
#define MULTIBOOT_HAS_MEMORY_MAP (1u << 6)
#define MULTIBOOT_HAS_LOADER_NAME (1u << 9)

struct multiboot_info {
    u32 flags;     /* which fields hold something */
    u32 mem_lower; /* KiB from address 0 */
    u32 mem_upper; /* KiB from 1 MiB */
    u32 boot_device;
    u32 cmdline; /* physical address of a NUL-terminated string */
    u32 mods_count;
    u32 mods_addr; /* physical address of multiboot_module[] */
    u32 syms[4];
    u32 mmap_length; /* bytes */
    u32 mmap_addr;   /* physical address of multiboot_region[] */
    u32 drives_length;
    u32 drives_addr;
    u32 config_table;
    u32 boot_loader_name; /* physical address of a NUL-terminated string */
    u32 apm_table;
};

struct multiboot_module {
    u32 start; /* physical address of the first byte */
    u32 end;   /* one past the last */
    u32 string; /* physical address of its name */
    u32 reserved;
};

#define MULTIBOOT_AVAILABLE 1
#define MULTIBOOT_RESERVED 2

struct multiboot_region {
    u32 size; /* bytes of this entry after this field */
    u64 start;
    u64 length; /* bytes */
    u32 type;
} __attribute__((packed));

_Static_assert(sizeof(struct multiboot_info) == 72, "layout fixed by the specification");
_Static_assert(sizeof(struct multiboot_region) == 24, "layout fixed by the specification");

#endif
