/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames of physical memory.
 *
 *     RESERVED            FREE --frame_alloc--> KERNEL --frame_set_kind--> ANONYMOUS, FILE, BALLOON --frame_free--> FREE
 *
 * 1. A frame is on the free list exactly if its kind is FREE; then nothing maps it and it has no pins.
 * 2. counts[kind] is the number of frames of each kind.
 * 3. Below watermarks.min only FRAME_RESERVE takes frames: the pager needs some to make room.
 */
#include "frames.h"

#include "../../lib/multiboot.h"
#include "../../lib/platform.h"
#include "../../lib/string.h"
#include "kernel.h"
#include "reclaim.h"
#include "schedule.h"

enum { LOW_MEMORY = 0x100000, KINDS = FRAME_BALLOON + 1 };
enum { MIN_FRAMES = 16, MIN_SHARE = 256, LOW_SHARE = 64, HIGH_SHARE = 32 }; /* of all frames: 0.4, 1.6 and 3.1 percent */

struct watermarks watermarks;
struct frame *frames;
unsigned frame_count;
static struct frame *free_list;
static unsigned counts[KINDS];
static unsigned managed; /* free at the start */
static bool zero_on_free;

static paddr end_of_ram(const struct multiboot_info *info)
{
    paddr end = LOW_MEMORY + (paddr)info->mem_upper_kib * 1024;

    return end < DIRECT_BYTES ? end : DIRECT_BYTES;
}

static void add_range(paddr from, paddr to)
{
    for (paddr page = to; page > from; page -= PAGE_BYTES) { /* the lowest is handed out first */
        struct frame *frame = frame_of(page - PAGE_BYTES);

        frame->kind = FRAME_FREE;
        frame->next = free_list;
        free_list = frame;
        counts[FRAME_FREE]++;
        counts[FRAME_RESERVED]--;
    }
}

static unsigned share(unsigned part)
{
    unsigned wanted = (managed - counts[FRAME_BALLOON]) / part;

    return wanted > MIN_FRAMES ? wanted : MIN_FRAMES;
}

/* Memory below 1 MiB is left to the firmware; above, the kernel's image and the frame table come first. */
void frames_init(const struct multiboot_info *info, paddr image_end)
{
    paddr table_end;

    frame_count = end_of_ram(info) >> PAGE_SHIFT;
    frames = direct(image_end);
    table_end = (image_end + frame_count * sizeof *frames + PAGE_BYTES - 1) & -(paddr)PAGE_BYTES;
    memset(frames, 0, frame_count * sizeof *frames);
    counts[FRAME_RESERVED] = frame_count;
    zero_on_free = argument("zerofree") != NULL;
    add_range(table_end, (paddr)frame_count << PAGE_SHIFT);
    managed = counts[FRAME_FREE];
    frames_set_watermarks();
}

void frames_set_watermarks(void)
{
    watermarks = (struct watermarks){share(MIN_SHARE), share(LOW_SHARE) + share(MIN_SHARE), share(HIGH_SHARE) + share(MIN_SHARE)};
}

void frame_set_kind(struct frame *frame, enum frame_kind kind)
{
    counts[frame->kind]--;
    counts[kind]++;
    frame->kind = kind;
}

static paddr take(unsigned flags)
{
    struct frame *frame = free_list;
    paddr page;

    if (!frame || (counts[FRAME_FREE] <= watermarks.min && !(flags & FRAME_RESERVE)))
        return 0;
    free_list = frame->next;
    frame_set_kind(frame, FRAME_KERNEL);
    *frame = (struct frame){.kind = FRAME_KERNEL};
    page = frame_address(frame);
    if (flags & FRAME_ZERO && !zero_on_free)
        zero_page(direct(page));
    return page;
}

paddr frame_alloc(unsigned flags)
{
    paddr page = take(flags);

    while (!page && flags & FRAME_MAY_WAIT && wait_for_room())
        page = take(flags);
    if (frames_are_low())
        wake_pager();
    return page;
}

void frame_free(paddr page)
{
    struct frame *frame = frame_of(page);

    if (frame->kind == FRAME_FREE || frame->kind == FRAME_RESERVED || frame->mappings || frame->pins)
        panic("frame %p freed with kind %d, %u mappings, %d pins", (void *)page, frame->kind, frame->mappings, frame->pins);
    if (zero_on_free)
        zero_page(direct(page));
    frame_set_kind(frame, FRAME_FREE);
    frame->inode = NULL;
    frame->next = free_list;
    free_list = frame;
}

bool frames_are_low(void)
{
    return counts[FRAME_FREE] < watermarks.low;
}

unsigned frames_total(void)
{
    return frame_count - LOW_MEMORY / PAGE_BYTES;
}

unsigned frames_free(void)
{
    return counts[FRAME_FREE];
}

unsigned frames_of_kind(enum frame_kind kind)
{
    return counts[kind];
}
