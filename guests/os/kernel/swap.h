/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Slots of the swap partition: one holds a page of a process. */
#ifndef SWAP_H
#define SWAP_H

#include "frames.h"

void swap_init(void);
unsigned swap_total(void);
unsigned swap_used(void);

/* Up to `wanted` slots in a row, each with a reference; how many, 0 if the partition is full. */
unsigned swap_alloc(unsigned wanted, uint32_t *first);
void swap_share(uint32_t slot);
void swap_release(uint32_t slot);

/* A slot's page into a frame, once the write of it that may be under way is done. 0 or an error. */
int swap_read(uint32_t slot, struct frame *frame);

/* Frames to slots in a row. */
int swap_write(uint32_t first, const paddr pages[], unsigned count);

#endif
