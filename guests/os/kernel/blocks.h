/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of metadata in memory, and the log that changes them all or not at all. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "disk.h"

enum { LOG_CAPACITY = 120 }; /* block numbers fit the first sector of the log's header */

struct buffer {
    uint32_t block;     /* of the partition */
    uint8_t is_used;    /* holds the block */
    uint8_t is_changed; /* in the transaction under way */
    uint8_t holds;      /* users at this moment */
    uint32_t used_at;   /* count of uses, for the least recent */
    paddr page;
    void *data;
};

/* The header of the log: its first sector is what commits. */
struct log_header {
    uint32_t magic;
    uint32_t count;               /* blocks that follow in the log; 0: nothing to replay */
    uint32_t checksum;            /* of count and blocks */
    uint32_t blocks[LOG_CAPACITY]; /* where they belong */
};

/* Takes memory for the buffers, and replays the log of the partition. 0 or an error. */
int blocks_init(struct extent partition, uint32_t log_first, uint32_t log_blocks);

/* A block, read if need be, until block_put; null if the disk fails or memory is out. */
struct buffer *block_get(uint32_t block);
/* The same for a block that is about to be filled anew: zeros. */
struct buffer *block_get_zeroed(uint32_t block);
void block_put(struct buffer *buffer);

/* The block's change is part of the transaction under way. */
void block_changed(struct buffer *buffer);

/* Whether an operation that changes up to `count` blocks still fits; else commit first. */
bool log_has_room(unsigned count);

/* All changes since the last commit become permanent at once. 0 or an error. */
int log_commit(void);

/* Data of files, past the buffers: up to TRANSFER_BLOCKS blocks in a row. */
int data_transfer(enum disk_operation operation, uint32_t block, const paddr pages[], unsigned count);

#endif
