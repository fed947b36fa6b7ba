/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page tables that point where there is no memory. Reads from there give ones or zeros, as the machine has it; what a
 * guest may rely on is that its own memory stays as it was.
 */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define NOWHERE 0x7F000000u /* beyond any memory that the suite is given, below the devices */

/* A page beyond memory: reads and writes do no harm. */
static void check_page(word unused)
{
    word frame = frame_new();

    (void)unused;
    map(space, TEST_VA, NOWHERE, WRITABLE);
    *at(frame) = 7;
    expect_none("write", try_write(TEST_VA));
    expect_none("read", try_read(TEST_VA));
    expect("memory", 7, *at(frame));
}

/* A table beyond memory: the access faults or reads nothing of ours; which one is the machine's affair. */
static void check_table(word unused)
{
    word frame = map_new(TEST_VA, WRITABLE);
    entry_t entry = *entry_at(space, TEST_VA, 2);
    struct outcome outcome;

    (void)unused;
    *at(frame) = 7;
    *entry_at(space, TEST_VA, 2) = NOWHERE | PRESENT | WRITABLE;
    reload_cr3();
    outcome = try_read(TEST_VA);
    expect_true("the read faults or is done", outcome.vector == NO_TRAP || outcome.vector == VECTOR_PAGE_FAULT);
    *entry_at(space, TEST_VA, 2) = entry;
    reload_cr3();
    expect("page when its table is back", 7, *at(TEST_VA));
}

static const struct test_case cases[] = {
    {"beyond.page", check_page, 0},
    {"beyond.table", check_table, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
