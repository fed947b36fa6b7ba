/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mappings without a gap, every one of them used: 64 MiB of addresses, and 60,000 addresses of one page. The arguments
 * pages=N and mappings=N ask for other numbers. What follows the mappings is between two writes to the POST port.
 */
#include "../lib/cmdline.h"
#include "../lib/platform.h"
#include "../lib/ports.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { PAGES = 16384, FRAMES = 256, MAPPINGS = 60000, STEP = 997 };
enum { MARK_START = 1, MARK_END = 2 };

static word page(unsigned i)
{
    return TEST_VA + (word)i * PAGE_BYTES;
}

static void check_dense(word unused)
{
    unsigned pages = cmdline_number("pages", PAGES);
    word frames = frames_new_aligned(FRAMES);

    (void)unused;
    require(pages, "no pages are asked for");
    for (unsigned i = 0; i < FRAMES; i++)
        *at(frames + i * PAGE_BYTES) = i;
    for (unsigned i = 0; i < pages; i++)
        map(space, page(i), frames + i % FRAMES * PAGE_BYTES, WRITABLE);
    for (unsigned i = 0; i < pages; i++)
        expect("page of a dense mapping", i % FRAMES, *at(page(i)));
}

/* The page becomes a table: no mapping of it, wherever it was used, may write unseen any more. */
static void check_mappings(word unused)
{
    unsigned mappings = cmdline_number("mappings", MAPPINGS);
    word table = frame_new(), data[2] = {frame_new(), frame_new()};
    word mapped = TEST_VA + (word)256 * LARGE_BYTES;

    (void)unused;
    require(mappings, "no mappings are asked for");
    for (unsigned i = 0; i < mappings; i++)
        map(space, page(i), table, WRITABLE);
    for (unsigned i = 0; i < mappings; i++)
        *at(page(i) + 2048) = 0;
    for (unsigned i = 0; i < 2; i++)
        *at(data[i]) = i;
    *(entry_t *)table = data[1] | PRESENT;
    *entry_at(space, mapped, 2) = table | PRESENT | WRITABLE;
    outb(POST_PORT, MARK_START);
    expect("page below the new table", 1, *at(mapped));
    outb(POST_PORT, MARK_END);
    for (unsigned i = 0; i < mappings; i += STEP) {
        *(volatile entry_t *)page(i) = data[i & 1] | PRESENT;
        invlpg(mapped);
        expect("page below the table after a write by one mapping", i & 1, *at(mapped));
    }
}

static const struct test_case cases[] = {
    {"dense.64-mib", check_dense, 0},
    {"dense.60000-used-mappings-of-a-page", check_mappings, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
