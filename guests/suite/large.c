/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages of 4 MiB, 2 MiB and 1 GiB: made, split, joined, moved, mixed with small ones. */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { MIDDLE = LARGE_BYTES / 2 + 0x10, LAST = LARGE_BYTES - 4 };
enum { GIB_SHIFT = 30 };

static entry_t *large(word va)
{
    return entry_at(space, va, 2);
}

static word map_large(word va, entry_t flags)
{
    word frames = frames_new_aligned(TABLE_ENTRIES);

    *large(va) = frames | flags | PRESENT | LARGE;
    return frames;
}

static void check_whole(word unused)
{
    static const word offsets[] = {0, PAGE_BYTES, MIDDLE, LAST};
    word frames = map_large(TEST_VA, WRITABLE);

    (void)unused;
    for (unsigned i = 0; i < 4; i++) {
        *at(TEST_VA + offsets[i]) = i + 1;
        expect("write through the large page", i + 1, *at(frames + offsets[i]));
        *at(frames + offsets[i]) = i + 100;
        expect("read through the large page", i + 100, *at(TEST_VA + offsets[i]));
    }
    expect_page_fault("behind the large page", try_read(TEST_VA + LARGE_BYTES), TEST_VA + LARGE_BYTES, 0);
}

static void check_rights(word unused)
{
    (void)unused;
    map_large(TEST_VA, 0);
    map_large(TEST_VA + LARGE_BYTES, USER);
    expect_none("supervisor read", try_read(TEST_VA + MIDDLE));
    expect_page_fault("supervisor write", try_write(TEST_VA + MIDDLE), TEST_VA + MIDDLE, ERROR_PRESENT | ERROR_WRITE);
    expect_page_fault("ring 3 read", try_user_read(TEST_VA + MIDDLE), TEST_VA + MIDDLE, ERROR_PRESENT | ERROR_USER);
    expect_none("ring 3 read of a user page", try_user_read(TEST_VA + LARGE_BYTES + MIDDLE));
    expect_page_fault("ring 3 write of a read-only page", try_user_write(TEST_VA + LARGE_BYTES + MIDDLE),
                      TEST_VA + LARGE_BYTES + MIDDLE, ERROR_PRESENT | ERROR_WRITE | ERROR_USER);
}

/* As a kernel splits a large page: a table of the same frames, one of which then changes. */
static void check_split(word unused)
{
    word frames = map_large(TEST_VA, WRITABLE);
    entry_t *table = (entry_t *)frame_new();

    (void)unused;
    *at(TEST_VA + MIDDLE) = 11;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++)
        table[i] = (frames + i * PAGE_BYTES) | PRESENT | WRITABLE;
    *large(TEST_VA) = (word)table | PRESENT | WRITABLE;
    reload_cr3();
    expect("kept contents", 11, *at(TEST_VA + MIDDLE));
    table[index_of(MIDDLE, 1)] &= ~(entry_t)WRITABLE;
    invlpg(TEST_VA + MIDDLE);
    expect_page_fault("page made read-only", try_write(TEST_VA + MIDDLE), TEST_VA + MIDDLE, ERROR_PRESENT | ERROR_WRITE);
    *at(TEST_VA + LAST) = 12;
    expect("its neighbour", 12, *at(frames + LAST));
}

static void check_join(word unused)
{
    word other;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    other = map_large(TEST_VA, WRITABLE);
    reload_cr3();
    *at(other) = 2;
    *at(other + LAST) = 3;
    expect("first page after joining", 2, *at(TEST_VA));
    expect("last page after joining", 3, *at(TEST_VA + LAST));
}

/* INVLPG of any address in it drops the whole page. */
static void check_moved(word unused)
{
    word first = map_large(TEST_VA, WRITABLE);
    word second = frames_new_aligned(TABLE_ENTRIES);

    (void)unused;
    *at(first) = *at(first + LAST) = 1;
    *at(second) = *at(second + LAST) = 2;
    expect("before", 1, *at(TEST_VA));
    expect("before, at its end", 1, *at(TEST_VA + LAST));
    *large(TEST_VA) = second | PRESENT | WRITABLE | LARGE;
    invlpg(TEST_VA + MIDDLE);
    expect("after", 2, *at(TEST_VA));
    expect("after, at its end", 2, *at(TEST_VA + LAST));
}

/* Page tables inside of a large page: the alias writes them as well as any other. */
static void check_holding_tables(word unused)
{
    word frames = frames_new_aligned(TABLE_ENTRIES);
    word page = TEST_VA + LARGE_BYTES;
    word first = frame_new(), second = frame_new();

    (void)unused;
    *large(TEST_VA) = frames | PRESENT | WRITABLE | LARGE;
    *large(page) = (frames + MIDDLE / PAGE_BYTES * PAGE_BYTES) | PRESENT | WRITABLE;
    *at(first) = 1;
    *at(second) = 2;
    *(volatile entry_t *)(TEST_VA + MIDDLE / PAGE_BYTES * PAGE_BYTES) = first | PRESENT | WRITABLE;
    expect("page mapped through the alias", 1, *at(page));
    *(volatile entry_t *)(TEST_VA + MIDDLE / PAGE_BYTES * PAGE_BYTES) = second | PRESENT | WRITABLE;
    invlpg(page);
    expect("page moved through the alias", 2, *at(page));
}

/* Without CR4.PSE bit 7 of a directory entry means nothing; PAE and long mode do not ask CR4.PSE. */
static void check_without_pse(word unused)
{
    word frame = frame_new();
    entry_t *table = (entry_t *)frame_new();

    (void)unused;
    require(PAGING_LEVELS > 2, "large identity pages need CR4.PSE; see pse-off for the 32-bit side");
    write_cr4(read_cr4() & ~(word)CR4_PSE);
    *at(map_large(TEST_VA, WRITABLE) + MIDDLE) = 9;
    expect("large page without CR4.PSE", 9, *at(TEST_VA + MIDDLE));
    table[0] = frame | PRESENT | WRITABLE;
    *large(TEST_VA) = (word)table | PRESENT | WRITABLE;
    reload_cr3();
    *at(frame) = 10;
    expect("small page without CR4.PSE", 10, *at(TEST_VA));
}

/* A space of small pages for the kernel, so that CR4.PSE can be off. */
static entry_t *small_identity(void)
{
    entry_t *root = (entry_t *)frame_new();

    for (word pa = 0; pa < IDENTITY_BYTES / 4; pa += PAGE_BYTES)
        map(root, pa, pa, WRITABLE);
    return root;
}

static void check_pse_off(word unused)
{
    entry_t *root;
    entry_t *table;
    word frame;

    (void)unused;
    require(PAGING_LEVELS == 2, "only 32-bit paging asks CR4.PSE");
    root = small_identity();
    table = (entry_t *)frame_new();
    frame = frame_new();
    table[0] = frame | PRESENT | WRITABLE;
    *at(frame) = 0x600D;
    root[index_of(TEST_VA, 2)] = (word)table | PRESENT | WRITABLE | LARGE;
    load_space(root);
    write_cr4(read_cr4() & ~(word)CR4_PSE);
    expect("bit 7 ignored", 0x600D, *at(TEST_VA));
    root[index_of(TEST_VA, 2)] = frames_new_aligned(TABLE_ENTRIES) | PRESENT | WRITABLE | LARGE;
    write_cr4(read_cr4() | CR4_PSE);
    expect("a large page from CR4.PSE on", 0, *at(TEST_VA));
}

static void check_gib(word unused)
{
#if PAGING_LEVELS == 4
    word frame;

    require(has_extended(EXTENDED_GIB_PAGES), "the CPU has no 1 GiB pages");
    frame = frame_new();
    *entry_at(space, TEST_VA, 3) = 0 | PRESENT | WRITABLE | LARGE;
    *at(frame + 8) = 0x61B;
    expect("read", 0x61B, *at(TEST_VA + frame + 8));
    expect("A", ACCESSED, *entry_at(space, TEST_VA, 3) & (ACCESSED | DIRTY));
    *at(TEST_VA + frame) = 0x61C;
    expect("write", 0x61C, *at(frame));
    expect("A and D", ACCESSED | DIRTY, *entry_at(space, TEST_VA, 3) & (ACCESSED | DIRTY));
    *entry_at(space, TEST_VA, 3) &= ~(entry_t)WRITABLE;
    invlpg(TEST_VA);
    expect_page_fault("made read-only", try_write(TEST_VA + frame), TEST_VA + frame, ERROR_PRESENT | ERROR_WRITE);
#else
    require(false, "only long mode has 1 GiB pages");
#endif
    (void)unused;
}

/* The 1 GiB page gives way to a table, and comes back. */
static void check_gib_split(word unused)
{
#if PAGING_LEVELS == 4
    word frame;

    require(has_extended(EXTENDED_GIB_PAGES), "the CPU has no 1 GiB pages");
    frame = frame_new();
    for (unsigned round = 0; round < 3; round++) {
        *entry_at(space, TEST_VA, 3) = 0 | PRESENT | WRITABLE | LARGE;
        reload_cr3();
        *at(frame) = round;
        expect("through the 1 GiB page", round, *at(TEST_VA + frame));
        *entry_at(space, TEST_VA, 3) = 0;
        reload_cr3();
        map(space, TEST_VA, frame, WRITABLE);
        expect("through the table", round, *at(TEST_VA));
        expect_page_fault("hole", try_read(TEST_VA + frame), TEST_VA + frame, 0);
    }
#else
    require(false, "only long mode has 1 GiB pages");
#endif
    (void)unused;
}

/* Bit 12 of a large page's entry is PAT, no part of the address. */
static void check_pat(word unused)
{
    word frames = map_large(TEST_VA, WRITABLE | 1 << 12);

    (void)unused;
    *at(TEST_VA) = 0x9A7;
    expect("write", 0x9A7, *at(frames));
}

static void check_global(word unused)
{
    word frames;

    (void)unused;
    write_cr4(read_cr4() | CR4_PGE);
    frames = map_large(TEST_VA, WRITABLE | GLOBAL);
    *at(TEST_VA + LAST) = 4;
    reload_cr3();
    expect("after a CR3 load", 4, *at(TEST_VA + LAST));
    *large(TEST_VA) = 0;
    invlpg(TEST_VA);
    expect_page_fault("after INVLPG", try_read(TEST_VA + LAST), TEST_VA + LAST, 0);
    expect("memory", 4, *at(frames + LAST));
}

static const struct test_case cases[] = {
    {"large.whole-page", check_whole, 0},
    {"large.rights", check_rights, 0},
    {"large.split", check_split, 0},
    {"large.join", check_join, 0},
    {"large.invlpg-drops-all-of-it", check_moved, 0},
    {"large.holding-page-tables", check_holding_tables, 0},
    {"large.pae-does-not-ask-pse", check_without_pse, 0},
    {"large.pse-off", check_pse_off, 0},
    {"large.gib-page", check_gib, 0},
    {"large.gib-page-split", check_gib_split, 0},
    {"large.pat-bit", check_pat, 0},
    {"large.global", check_global, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
