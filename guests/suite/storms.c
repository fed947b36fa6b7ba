/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loads that kernels put on page tables: fork, exec and exit, maps and unmaps by the thousand. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

static word page_with(uint32_t value)
{
    word frame = frame_new();

    *at(frame) = value;
    return frame;
}

static word page(unsigned i)
{
    return TEST_VA + (word)i * PAGE_BYTES;
}

/* Copy on write, as fork does it: the child shares read-only pages, and the first write of each copies. */
enum { FORK_PAGES = 48, FORKS = 12 };
static entry_t *running;
static unsigned copies;

static bool hook_copy_on_write(struct frame *frame)
{
    word va = read_cr2();
    entry_t *entry = entry_at(running, va, 1);
    word copy;

    if (frame->vector != VECTOR_PAGE_FAULT || frame->error != (ERROR_PRESENT | ERROR_WRITE))
        return false;
    copy = frame_new();
    memcpy((void *)copy, table_of(*entry), PAGE_BYTES);
    *entry = copy | PRESENT | WRITABLE;
    invlpg(va);
    copies++;
    return true;
}

static entry_t *fork_space(entry_t *parent)
{
    entry_t *child = space_new();

    for (unsigned i = 0; i < FORK_PAGES; i++) {
        entry_t *entry = entry_at(parent, page(i), 1);

        *entry &= ~(entry_t)(WRITABLE | DIRTY);
        *entry_at(child, page(i), 1) = *entry;
    }
    reload_cr3();
    return child;
}

static void check_fork(word unused)
{
    (void)unused;
    for (unsigned i = 0; i < FORK_PAGES; i++)
        map(space, page(i), page_with(i), WRITABLE);
    trap_hook = hook_copy_on_write;
    copies = 0;
    for (unsigned child = 1; child <= FORKS; child++) {
        running = fork_space(space);
        load_space(running);
        for (unsigned i = child % 3; i < FORK_PAGES; i += 3)
            *at(page(i)) += 1000 * child;
        for (unsigned i = 0; i < FORK_PAGES; i++)
            expect("page of a child", i + (i % 3 == child % 3 ? 1000 * child : 0), *at(page(i)));
        load_space(space);
        running = space;
        for (unsigned i = 0; i < FORK_PAGES; i++)
            expect("page of the parent", i, *at(page(i)));
    }
    expect("copies", FORKS * FORK_PAGES / 3, copies);
}

/* Spaces come and go in the same few frames. */
static void check_exec_exit(word unused)
{
    enum { SPACES = 40, PAGES = 16 };
    word pool = frames_new_aligned(32);

    (void)unused;
    for (unsigned n = 0; n < SPACES; n++) {
        entry_t *root = (entry_t *)pool;
        word next = pool + PAGE_BYTES;

        memset((void *)pool, 0, 32 * PAGE_BYTES);
        memcpy(root, space, PAGE_BYTES);
        root[index_of(TEST_VA, PAGING_LEVELS)] = 0;
        for (unsigned level = PAGING_LEVELS; level > 1; level--, next += PAGE_BYTES)
            *entry_at(root, TEST_VA, level) = next | (PAGING_LEVELS == 3 && level == 3 ? PRESENT : PRESENT | WRITABLE);
        for (unsigned i = 0; i < PAGES; i++, next += PAGE_BYTES) {
            *at(next) = n * PAGES + i;
            map(root, page(i), next, WRITABLE);
        }
        load_space(root);
        for (unsigned i = 0; i < PAGES; i++)
            expect("page of a short-lived space", n * PAGES + i, *at(page(i)));
        load_space(space);
    }
}

/* Maps and unmaps ranges over and over, with one flush for many changes. */
static void check_mmap(word unused)
{
    enum { PAGES = 256, ROUNDS = 6 };
    word frames = frames_new_aligned(PAGES);

    (void)unused;
    for (unsigned i = 0; i < PAGES; i++)
        *at(frames + i * PAGE_BYTES) = i;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < PAGES; i++)
            map(space, page(i), frames + (i * 7 + round) % PAGES * PAGE_BYTES, WRITABLE);
        reload_cr3();
        for (unsigned i = 0; i < PAGES; i++)
            expect("page of a mapped range", (i * 7 + round) % PAGES, *at(page(i)));
        for (unsigned i = 0; i < PAGES; i++)
            *leaf(page(i)) = 0;
        reload_cr3();
        for (unsigned i = round; i < PAGES; i += 64)
            expect_page_fault("page of an unmapped range", try_read(page(i)), page(i), 0);
    }
}

/* One frame mapped everywhere; then all of that becomes read-only. */
static void check_many_mappings(word unused)
{
    enum { MAPPINGS = 60000, STEP = 997 };
    word frame = page_with(0xF00D);

    (void)unused;
    for (unsigned i = 0; i < MAPPINGS; i++)
        map(space, page(i), frame, WRITABLE);
    for (unsigned i = 0; i < MAPPINGS; i += STEP) {
        expect("frame by one of its mappings", 0xF00D, *at(page(i)));
        *at(page(i)) = 0xF00D;
    }
    for (unsigned i = 0; i < MAPPINGS; i++)
        *leaf(page(i)) &= ~(entry_t)WRITABLE;
    reload_cr3();
    for (unsigned i = 0; i < MAPPINGS; i += STEP)
        expect_page_fault("write by one of them", try_write(page(i)), page(i), ERROR_PRESENT | ERROR_WRITE);
    *at(frame) = 0xBEEF;
    expect("frame by the last", 0xBEEF, *at(page(MAPPINGS - 1)));
}

/* A page with many used mappings becomes a page table: every one of them must stop writing unseen. */
static void check_mapped_page_becomes_table(word unused)
{
    enum { MAPPINGS = 512 };
    word table = frame_new();
    word mapped = TEST_VA + (word)64 * LARGE_BYTES;

    (void)unused;
    for (unsigned i = 0; i < MAPPINGS; i++) {
        map(space, page(i), table, WRITABLE);
        *at(page(i) + 2048) = i;
    }
    memset((void *)table, 0, PAGE_BYTES);
    *entry_at(space, mapped, 2) = table | PRESENT | WRITABLE;
    for (unsigned i = 0; i < MAPPINGS; i += 31) {
        *(volatile entry_t *)page(i) = page_with(i) | PRESENT | WRITABLE;
        invlpg(mapped);
        expect("page mapped through one of many mappings", i, *at(mapped));
    }
}

static void check_wp_toggles(word unused)
{
    enum { TOGGLES = 20000 };
    word with = read_cr0(), without = with & ~(word)CR0_WP;

    (void)unused;
    map_new(TEST_VA, 0);
    for (unsigned i = 0; i < TOGGLES; i++) {
        write_cr0(without);
        *at(TEST_VA) = i;
        write_cr0(with);
    }
    expect("last write", TOGGLES - 1, *at(TEST_VA));
    expect_page_fault("with WP at the end", try_write(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_WRITE);
}

/* More roots than any cache of them holds, in few frames. */
static void check_many_roots(word unused)
{
    enum { ROOTS = 600 };
    word frames[2] = {page_with(1), page_with(2)};
    entry_t *roots[ROOTS];

    (void)unused;
    for (unsigned i = 0; i < ROOTS; i++) {
        roots[i] = (entry_t *)frame_new();
        memcpy(roots[i], space, PAGE_BYTES);
    }
    map(space, TEST_VA, frames[0], WRITABLE);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < ROOTS; i++) {
            roots[i][index_of(TEST_VA, PAGING_LEVELS)] = space[index_of(TEST_VA, PAGING_LEVELS)];
            load_space(roots[i]);
            expect("page in one of many spaces", round + 1, *at(TEST_VA));
        }
        map(space, TEST_VA, frames[1], WRITABLE);
    }
    load_space(space);
}

/* Pseudo-random edits against a plain model of what is mapped where. */
static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static void check_random(word unused)
{
    enum { PAGES = 64, STEPS = 3000, ABSENT = 0xFFFF };
    uint16_t model[PAGES];
    uint32_t state = 0x5EED;
    word frames = frames_new_aligned(PAGES);

    (void)unused;
    for (unsigned i = 0; i < PAGES; i++) {
        *at(frames + i * PAGE_BYTES) = i;
        model[i] = ABSENT;
    }
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = next_random(&state) % PAGES, n = next_random(&state) % PAGES;

        switch (next_random(&state) % 4) {
        case 0:
            map(space, page(i), frames + n * PAGE_BYTES, WRITABLE);
            invlpg(page(i));
            model[i] = (uint16_t)n;
            break;
        case 1:
            *leaf(page(i)) = 0;
            invlpg(page(i));
            model[i] = ABSENT;
            break;
        default:
            if (model[i] == ABSENT)
                expect_page_fault("page that the model has not", try_read(page(i)), page(i), 0);
            else
                expect("page that the model has", model[i], *at(page(i)));
        }
    }
}

static const struct test_case cases[] = {
    {"storms.fork", check_fork, 0},
    {"storms.exec-exit", check_exec_exit, 0},
    {"storms.mmap", check_mmap, 0},
    {"storms.60000-mappings-of-a-page", check_many_mappings, 0},
    {"storms.mapped-page-becomes-a-table", check_mapped_page_becomes_table, 0},
    {"storms.wp-toggles", check_wp_toggles, 0},
    {"storms.many-roots", check_many_roots, 0},
    {"storms.random-edits", check_random, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
