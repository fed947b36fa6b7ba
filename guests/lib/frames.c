/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "frames.h"

#include "exit.h"
#include "print.h"
#include "string.h"

/* More RAM than this is left alone: no guest needs it, and its page tables would only cost start-up time. */
static const uint32_t FRAMES_LIMIT = 256u << 20;

static uint32_t next_frame; /* address */
static uint32_t end_frame;  /* address */

void frames_init(uint32_t start, uint32_t end)
{
    next_frame = (start + PAGE_BYTES - 1) & -(uint32_t)PAGE_BYTES;
    end_frame = (end < FRAMES_LIMIT ? end : FRAMES_LIMIT) & -(uint32_t)PAGE_BYTES;
}

uint32_t frame_alloc(void)
{
    uint32_t frame = next_frame;

    if (frame >= end_frame) {
        kprintf("out of memory: no frame left below %08x\n", end_frame);
        guest_exit(EXIT_BAD_BOOT);
    }
    next_frame += PAGE_BYTES;
    return (uint32_t)memset((void *)frame, 0, PAGE_BYTES);
}

uint32_t frames_free(void)
{
    return next_frame < end_frame ? (end_frame - next_frame) / PAGE_BYTES : 0;
}

uint32_t frames_end(void)
{
    return end_frame;
}
