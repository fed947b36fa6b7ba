/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What RAM there is, the same for multiboot and for INT 15h. */
#ifndef FIRMWARE_MEMORY_H
#define FIRMWARE_MEMORY_H

#include "multiboot.h"

#define MEMORY_REGIONS 5

/* Fills the map of a machine whose RAM ends at `ram`. */
void describe_regions(struct multiboot_region regions[MEMORY_REGIONS], u32 ram);

#endif
