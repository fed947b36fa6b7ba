/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disk, in blocks of a page's size. */
#ifndef DISK_H
#define DISK_H

#include "arch.h"

enum disk_operation { DISK_READ, DISK_WRITE };
enum { BLOCK_BYTES = PAGE_BYTES, SECTOR_BYTES = 512, TRANSFER_BLOCKS = 32 };
enum { PARTITION_FILES = 0x7F, PARTITION_SWAP = 0x82 }; /* types in the master boot record */

struct extent {
    uint32_t first; /* block */
    uint32_t count; /* blocks */
};

/* Finds the disk; false: there is none. */
bool disk_init(void);
uint32_t disk_blocks(void);

/* Moves up to TRANSFER_BLOCKS blocks from or to as many frames; sleeps meanwhile. 0, -EIO or -EROFS. */
int disk_transfer(enum disk_operation operation, uint32_t block, const paddr pages[], unsigned count);

/* Until all that was written is safe. */
int disk_flush(void);

/* The first partition of a type; false: there is none. */
bool disk_partition(unsigned type, struct extent *extent);

#endif
