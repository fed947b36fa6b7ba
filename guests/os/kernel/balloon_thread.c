/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The balloon driver (../balloon.c) in this kernel: a thread that polls once a second, with pages from the frame allocator. */
#include "balloon_thread.h"

#include "../balloon.h"
#include "../include/syscall.h"
#include "frames.h"
#include "kernel.h"
#include "reclaim.h"
#include "schedule.h"

static struct balloon balloon;

static page_number take_page(void)
{
    paddr page = frame_alloc(0); /* neither waits nor goes below the mark that is left to the pager */

    if (page)
        frame_set_kind(frame_of(page), FRAME_BALLOON);
    return page >> PAGE_SHIFT;
}

static void give_page(page_number page)
{
    frame_free((paddr)page << PAGE_SHIFT);
}

static void *contents(page_number page)
{
    return direct((paddr)page << PAGE_SHIFT);
}

/* Short of memory means that the pager has not caught up: between its marks it makes room for the balloon as for anybody. */
static bool is_struggling(void)
{
    return frames_free() <= (watermarks.min + watermarks.low) / 2;
}

static void say(const char *what, uint32_t number)
{
    kprintf("%s: %u\n", what, number);
}

static const struct balloon_kernel kernel = {take_page, give_page, contents, is_struggling, frames_total, say};

static void run(void *unused)
{
    (void)unused;
    for (;;) {
        sleep_ticks(TICKS_PER_SECOND);
        balloon_poll(&balloon);
        frames_set_watermarks();
    }
}

void balloon_start(void)
{
    if (argument("noballoon"))
        return;
    if (!balloon_init(&balloon, &kernel)) {
        announce("balloon: none\n");
        return;
    }
    announce("balloon: found\n");
    thread_create("balloon", run, NULL);
}
