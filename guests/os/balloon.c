/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The balloon.
 *
 * 1. `size` page numbers are in the book; the machine has been told of each, and nobody else in the kernel has them.
 * 2. A page of the book has the number of the next page of the book (0: none), how many page numbers it has, and those numbers.
 * 3. After RESET no page is the machine's any more: all go back to the kernel without a call, and the driver begins with START.
 */
#include "balloon.h"

enum { PORT = 0x5670, MAGIC = 0x456C6D6F, GUEST_KIND = 0x656D };
enum { START, GET_TARGET, LOCK, UNLOCK, GUEST_ID, BATCHED_LOCK = 6, BATCHED_UNLOCK };
enum { SUCCESS = 0, NOT_NEEDED = 6, RESET = 7, STARTED = 0x03000000, FAILED = -1 };
enum { CAN_BASIC = 2, CAN_BATCHED = 4, BATCH = 512, ENTRY_SHIFT = 12, ENTRY_STATUS = 0x1F };
enum { PAGE_WORDS = 1024, BOOK_HEADER = 2, BOOK_ENTRIES = PAGE_WORDS - BOOK_HEADER };
enum { LEAST_RATE = 32, FIRST_RATE = 1024, MOST_RATE = 8192, REFUSED = 8 }; /* pages a second */

/* ---- the port ---- */

static int call(uint32_t command, uint32_t first, uint32_t second, uint32_t *target)
{
    uint32_t status = MAGIC, granted = command, answer = first;

    __asm__ volatile("inl %%dx, %%eax" : "+a"(status), "+c"(granted), "+b"(answer) : "d"(PORT), "S"(second) : "memory");
    if (target && command == START)
        *target = granted;
    else if (target && status == SUCCESS)
        *target = answer;
    return (int)status;
}

/* ---- the book ---- */

static uint32_t *book_page(struct balloon *balloon)
{
    return balloon->kernel->contents(balloon->book);
}

/* Room for one more number; false if that needs a page which the kernel does not have. */
static bool make_room_in_book(struct balloon *balloon)
{
    page_number page;
    uint32_t *words;

    if (balloon->book && book_page(balloon)[1] < BOOK_ENTRIES)
        return true;
    page = balloon->kernel->take_page();
    if (!page)
        return false;
    words = balloon->kernel->contents(page);
    words[0] = balloon->book;
    words[1] = 0;
    balloon->book = page;
    return true;
}

static void enter(struct balloon *balloon, page_number page)
{
    uint32_t *words = book_page(balloon);

    words[BOOK_HEADER + words[1]++] = page;
    balloon->size++;
}

/* The last number of the book, which leaves it; an empty page of the book goes back to the kernel. */
static page_number remove_last(struct balloon *balloon)
{
    uint32_t *words = book_page(balloon);
    page_number page = words[BOOK_HEADER + --words[1]];

    if (!words[1]) {
        page_number empty = balloon->book;

        balloon->book = words[0];
        balloon->kernel->give_page(empty);
    }
    balloon->size--;
    return page;
}

/* ---- refused pages ---- */

static void release_refused(struct balloon *balloon)
{
    while (balloon->refused_count)
        balloon->kernel->give_page(balloon->refused[--balloon->refused_count]);
}

static void refuse(struct balloon *balloon, page_number page)
{
    if (balloon->refused_count == REFUSED)
        balloon->kernel->give_page(page);
    else
        balloon->refused[balloon->refused_count++] = page;
}

/* ---- beginning, and beginning anew ---- */

static bool start(struct balloon *balloon)
{
    uint32_t granted = 0;
    int status = call(START, CAN_BASIC | CAN_BATCHED, 0, &granted);

    balloon->is_there = status == STARTED || status == SUCCESS;
    balloon->is_batched = status == STARTED && granted & CAN_BATCHED;
    if (balloon->is_there)
        call(GUEST_ID, GUEST_KIND, 0, 0);
    return balloon->is_there;
}

/* The machine no longer has any page: they are the kernel's again, without a call. */
static void begin_anew(struct balloon *balloon)
{
    balloon->kernel->say("balloon: reset with pages", balloon->size);
    while (balloon->size)
        balloon->kernel->give_page(remove_last(balloon));
    release_refused(balloon);
    start(balloon);
}

bool balloon_init(struct balloon *balloon, const struct balloon_kernel *kernel)
{
    *balloon = (struct balloon){.kernel = kernel, .rate = FIRST_RATE};
    return start(balloon);
}

/* ---- one page, and many ---- */

/* Tells the machine of a page; false: stop here. */
static bool settle(struct balloon *balloon, page_number page, int status, bool is_inflating)
{
    if (!is_inflating) {
        balloon->kernel->give_page(page); /* whatever the machine said, it will not be offered again */
        return true;
    }
    if (status == SUCCESS) {
        enter(balloon, page);
        return true;
    }
    if (status == NOT_NEEDED) {
        balloon->kernel->give_page(page);
        return false;
    }
    refuse(balloon, page);
    return true;
}

/* Takes up to `wanted` pages, as long as the kernel bears it; how many. */
static uint32_t take_pages(struct balloon *balloon, page_number pages[], uint32_t wanted)
{
    uint32_t count = 0;

    while (count < wanted && !balloon->kernel->is_struggling()) {
        page_number page = balloon->kernel->take_page();

        if (!page)
            break;
        pages[count++] = page;
    }
    return count;
}

/* All pages in one call, through the page of entries; the call's status. */
static int move_batch(struct balloon *balloon, const page_number pages[], uint32_t count, bool is_inflating)
{
    uint64_t *entries = balloon->kernel->contents(balloon->batch);
    bool goes_on = true;
    int status;

    for (uint32_t i = 0; i < count; i++)
        entries[i] = (uint64_t)pages[i] << ENTRY_SHIFT;
    status = call(is_inflating ? BATCHED_LOCK : BATCHED_UNLOCK, balloon->batch, count, &balloon->target);
    for (uint32_t i = 0; i < count; i++) {
        int own = status == SUCCESS ? (int)(entries[i] & ENTRY_STATUS) : status;

        goes_on = settle(balloon, pages[i], own, is_inflating) && goes_on;
    }
    return goes_on ? status : NOT_NEEDED;
}

static int move_singly(struct balloon *balloon, const page_number pages[], uint32_t count, bool is_inflating)
{
    int status = SUCCESS;

    for (uint32_t i = 0; i < count; i++) {
        if (status != RESET)
            status = call(is_inflating ? LOCK : UNLOCK, pages[i], 0, &balloon->target);
        settle(balloon, pages[i], status, is_inflating);
    }
    return status;
}

static int move(struct balloon *balloon, const page_number pages[], uint32_t count, bool is_inflating)
{
    if (balloon->is_batched && !balloon->batch)
        balloon->batch = balloon->kernel->take_page();
    if (balloon->is_batched && balloon->batch)
        return move_batch(balloon, pages, count, is_inflating);
    return move_singly(balloon, pages, count, is_inflating);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The rate falls by half where the kernel struggles, and grows by a quarter where it does not. */
static void adapt(struct balloon *balloon, bool was_easy)
{
    if (was_easy)
        balloon->rate = least(balloon->rate + balloon->rate / 4, MOST_RATE);
    else if (balloon->rate / 2 >= LEAST_RATE)
        balloon->rate /= 2;
}

static int inflate(struct balloon *balloon)
{
    static page_number pages[BATCH];
    uint32_t budget = balloon->rate;

    while (budget && balloon->size < balloon->target) {
        uint32_t wanted = least(least(budget, BATCH), balloon->target - balloon->size);
        uint32_t room, count;
        int status;

        if (!make_room_in_book(balloon)) {
            adapt(balloon, false);
            return SUCCESS;
        }
        room = BOOK_ENTRIES - book_page(balloon)[1];
        count = take_pages(balloon, pages, least(wanted, room));
        if (!count) {
            adapt(balloon, false);
            return SUCCESS;
        }
        status = move(balloon, pages, count, true);
        if (status != SUCCESS)
            return status;
        budget -= count;
    }
    adapt(balloon, true);
    return SUCCESS;
}

static int deflate(struct balloon *balloon)
{
    static page_number pages[BATCH];

    while (balloon->size > balloon->target) {
        uint32_t count = least(balloon->size - balloon->target, BATCH);
        int status;

        for (uint32_t i = 0; i < count; i++)
            pages[i] = remove_last(balloon);
        status = move(balloon, pages, count, false);
        if (status != SUCCESS)
            return status;
    }
    return SUCCESS;
}

void balloon_poll(struct balloon *balloon)
{
    int status;

    if (!balloon->is_there)
        return;
    status = call(GET_TARGET, balloon->kernel->total_pages(), 0, &balloon->target);
    if (status == SUCCESS)
        status = balloon->size < balloon->target ? inflate(balloon) : deflate(balloon);
    release_refused(balloon);
    if (status == RESET)
        begin_anew(balloon);
}
