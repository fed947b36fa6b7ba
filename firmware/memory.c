/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "memory.h"
#include "layout.h"

static struct multiboot_region region(u64 start, u64 end, u32 type)
{
    return (struct multiboot_region){
        .size = sizeof(struct multiboot_region) - sizeof(u32), .start = start, .length = end - start, .type = type};
}

void describe_regions(struct multiboot_region regions[MEMORY_REGIONS], u32 ram)
{
    regions[0] = region(0, EBDA, MULTIBOOT_AVAILABLE);
    regions[1] = region(EBDA, VIDEO_MEMORY, MULTIBOOT_RESERVED);
    regions[2] = region(ROM_BASE, ROM_BASE + ROM_BYTES, MULTIBOOT_RESERVED);
    regions[3] = region(HIGH_MEMORY, ram, MULTIBOOT_AVAILABLE);
    regions[4] = region(ROM_HIGH_BASE, (u64)ROM_HIGH_BASE + ROM_BYTES, MULTIBOOT_RESERVED);
}
