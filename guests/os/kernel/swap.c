/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The swap partition.
 *
 * 1. references[slot] is the number of page table entries that name the slot, and one more while the pager writes it.
 * 2. A slot being written is in [writing_first, writing_first + writing_count): its readers wait.
 */
#include "swap.h"

#include "../../lib/string.h"
#include "disk.h"
#include "inode.h"
#include "kernel.h"
#include "schedule.h"
#include "statistics.h"

enum { MAX_SLOTS = 65536 }; /* 256 MiB */

static uint8_t references[MAX_SLOTS];
static struct extent partition;
static unsigned used;
static uint32_t next_slot; /* where the search for free ones goes on */
static uint32_t writing_first;
static unsigned writing_count;

void swap_init(void)
{
    const char *wanted = argument("swap");

    if ((wanted && strcmp(wanted, "off") == 0) || !disk_partition(PARTITION_SWAP, &partition)) {
        partition.count = 0;
        return;
    }
    if (partition.count > MAX_SLOTS)
        partition.count = MAX_SLOTS;
}

unsigned swap_total(void)
{
    return partition.count;
}

unsigned swap_used(void)
{
    return used;
}

static unsigned free_run(uint32_t slot, unsigned wanted)
{
    unsigned count = 0;

    while (count < wanted && slot + count < partition.count && !references[slot + count])
        count++;
    return count;
}

unsigned swap_alloc(unsigned wanted, uint32_t *first)
{
    for (unsigned tried = 0; tried < partition.count; tried++) {
        uint32_t slot = (next_slot + tried) % partition.count;
        unsigned count = free_run(slot, wanted);

        if (!count)
            continue;
        for (unsigned i = 0; i < count; i++)
            references[slot + i] = 1;
        used += count;
        next_slot = slot + count;
        *first = slot;
        return count;
    }
    return 0;
}

void swap_share(uint32_t slot)
{
    if (!references[slot] || ++references[slot] == 0)
        panic("swap slot %u shared too often", slot);
}

void swap_release(uint32_t slot)
{
    if (slot >= partition.count || !references[slot])
        panic("swap slot %u released twice", slot);
    if (--references[slot] == 0)
        used--;
}

static bool is_being_written(uint32_t slot)
{
    return slot - writing_first < writing_count;
}

int swap_read(uint32_t slot, struct frame *frame)
{
    paddr page = frame_address(frame);

    while (is_being_written(slot))
        sleep_on(&writing_count);
    statistics.swap_reads++;
    return disk_transfer(DISK_READ, partition.first + slot, &page, 1);
}

int swap_write(uint32_t first, const paddr pages[], unsigned count)
{
    int error;

    writing_first = first;
    writing_count = count;
    error = disk_transfer(DISK_WRITE, partition.first + first, pages, count);
    writing_count = 0;
    wake_all(&writing_count);
    statistics.swap_writes += count;
    return error;
}
