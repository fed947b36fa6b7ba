/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages to the machine and back, in full batches: each is stored to, given away with its frame, and taken again. */
#include "bench_mmu.h"

#include "lib/exit.h"
#include "lib/frames.h"

enum { PORT = 0x5670, MAGIC = 0x456C6D6F, START = 0, BATCHED_LOCK = 6, BATCHED_UNLOCK = 7, STARTED = 0x03000000, CAPABILITIES = 6 };
enum { BATCH = 512, STATUS_MASK = 0x1F };

static uint32_t call(uint32_t command, uint32_t first, uint32_t second)
{
    uint32_t status = MAGIC;

    __asm__ volatile("inl %%dx, %%eax" : "+a"(status), "+c"(command), "+b"(first) : "d"(PORT), "S"(second) : "memory");
    return status;
}

static void move(uint32_t command, uint64_t entries[BATCH], const uint32_t pages[BATCH])
{
    for (uint32_t i = 0; i < BATCH; i++)
        entries[i] = pages[i];
    if (call(command, (uint32_t)entries / PAGE_BYTES, BATCH) != 0)
        fail("the balloon refuses a batch");
    for (uint32_t i = 0; i < BATCH; i++)
        if (entries[i] & STATUS_MASK)
            fail("the balloon refuses page %08x: status %u", pages[i], (uint32_t)entries[i] & STATUS_MASK);
}

uint32_t run_balloon(uint32_t count)
{
    static uint32_t pages[BATCH];
    uint64_t *entries = (uint64_t *)frame_alloc();

    if (call(START, CAPABILITIES, 0) != STARTED)
        fail("no balloon");
    for (uint32_t i = 0; i < BATCH; i++)
        pages[i] = frame_alloc();
    for (uint32_t round = 0; round < count; round++) {
        for (uint32_t i = 0; i < BATCH; i++)
            *(volatile uint32_t *)pages[i] = round;
        move(BATCHED_LOCK, entries, pages);
        move(BATCHED_UNLOCK, entries, pages);
    }
    return count;
}
