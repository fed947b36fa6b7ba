/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nothing but the balloon driver (os/balloon.c) and a free list. Each second it polls and says what it has. Arguments: seconds=COUNT, and
 * misbehave=silent (never polls), stop (polls for three seconds only), slow (takes 8 pages a second), touch (stores to a page that it gave away).
 */
#include "lib/boot.h"
#include "lib/cmdline.h"
#include "lib/exit.h"
#include "lib/frames.h"
#include "lib/interrupts.h"
#include "lib/pic.h"
#include "lib/pit.h"
#include "lib/platform.h"
#include "lib/print.h"
#include "os/balloon.h"

enum { TICKS_PER_SECOND = 100, KEPT_PAGES = 64, SLOW_PAGES = 8, STOP_AT = 3 };

static uint32_t free_list; /* address of the first free frame, whose first word is the next one's */
static uint32_t free_count, total_count;
static uint32_t allowance;  /* pages that it takes before the next second, for misbehave=slow */
static volatile uint32_t ticks;

static page_number take_page(void)
{
    uint32_t page = free_list;

    if (free_count <= KEPT_PAGES || !allowance)
        return 0;
    allowance--;
    free_count--;
    free_list = *(uint32_t *)page;
    return page / PAGE_BYTES;
}

static void give_page(page_number number)
{
    uint32_t page = number * PAGE_BYTES;

    *(uint32_t *)page = free_list;
    free_list = page;
    free_count++;
}

static void *contents(page_number page)
{
    return (void *)(page * PAGE_BYTES);
}

static bool is_struggling(void)
{
    return free_count <= KEPT_PAGES;
}

static uint32_t total_pages(void)
{
    return total_count;
}

static void say(const char *what, uint32_t number)
{
    kprintf("%s: %u\n", what, number);
}

static const struct balloon_kernel kernel = {take_page, give_page, contents, is_struggling, total_pages, say};

static void on_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
}

static void take_all_frames(void)
{
    while (frames_free())
        give_page(frame_alloc() / PAGE_BYTES);
    total_count = free_count;
}

/* The page that was given away last is the last of the driver's book (os/balloon.c). */
static void touch_given_page(const struct balloon *balloon)
{
    const uint32_t *book = contents(balloon->book);

    if (balloon->size)
        *(volatile uint32_t *)contents(book[1 + book[1]]) = 1;
}

int guest_main(const struct boot_info *info)
{
    static struct balloon balloon;
    uint32_t seconds = cmdline_number("seconds", 10);

    (void)info;
    take_all_frames();
    irq_enable(PIT_IRQ, on_tick);
    pit_start(TICKS_PER_SECOND);
    interrupts_on();
    if (!balloon_init(&balloon, &kernel)) {
        kprintf("balloon: none\n");
        return EXIT_OK;
    }
    for (uint32_t second = 1; second <= seconds; second++) {
        bool polls = !cmdline_is("misbehave", "silent") && !(cmdline_is("misbehave", "stop") && second > STOP_AT);

        while (ticks < second * TICKS_PER_SECOND)
            __asm__ volatile("hlt");
        allowance = cmdline_is("misbehave", "slow") ? SLOW_PAGES : UINT32_MAX;
        if (polls)
            balloon_poll(&balloon);
        if (cmdline_is("misbehave", "touch"))
            touch_given_page(&balloon);
        kprintf("second=%u target=%u size=%u free=%u\n", second, balloon.target, balloon.size, free_count);
    }
    return EXIT_OK;
}
