/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the CPU writes into page-table entries, A and D, and what it must carry without effect. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define BITS (ACCESSED | DIRTY)
#define SOFTWARE_BITS ((entry_t)7 << 9)

static entry_t bits_at(word va, unsigned level)
{
    return *entry_at(space, va, level) & BITS;
}

static void check_read(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    expect("before any access", 0, bits_at(TEST_VA, 1));
    (void)*at(TEST_VA);
    expect("after a read", ACCESSED, bits_at(TEST_VA, 1));
    expect("of the directory entry", ACCESSED, bits_at(TEST_VA, 2));
}

static void check_write(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    expect("after a write", BITS, bits_at(TEST_VA, 1));
    expect("D is for pages, not for tables", ACCESSED, bits_at(TEST_VA, 2));
}

/* Every level below PAE's root, whose entries have no A. */
static void check_upper_levels(word unused)
{
    unsigned top = PAGING_LEVELS == 3 ? 2 : PAGING_LEVELS;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    for (unsigned level = 2; level <= top; level++)
        expect("upper level before", 0, bits_at(TEST_VA, level));
    *at(TEST_VA) = 1;
    for (unsigned level = 2; level <= top; level++)
        expect("upper level after", ACCESSED, bits_at(TEST_VA, level));
}

static void check_write_after_read(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    (void)*at(TEST_VA);
    *at(TEST_VA) = 1;
    expect("after a read, then a write", BITS, bits_at(TEST_VA, 1));
}

static void check_cleared(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    for (unsigned round = 0; round < 3; round++) {
        *at(TEST_VA) = round;
        expect("after a write", BITS, bits_at(TEST_VA, 1));
        *leaf(TEST_VA) &= ~(entry_t)BITS;
        invlpg(TEST_VA);
        (void)*at(TEST_VA);
        expect("cleared, then a read", ACCESSED, bits_at(TEST_VA, 1));
        *leaf(TEST_VA) &= ~(entry_t)BITS;
        reload_cr3();
    }
}

static void check_dirty_cleared_alone(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    *leaf(TEST_VA) &= ~(entry_t)DIRTY;
    invlpg(TEST_VA);
    (void)*at(TEST_VA);
    expect("D cleared, then a read", ACCESSED, bits_at(TEST_VA, 1));
    *at(TEST_VA) = 2;
    expect("D cleared, then a write", BITS, bits_at(TEST_VA, 1));
}

static void check_faulting(word unused)
{
    (void)unused;
    map_new(TEST_VA, 0);
    expect_page_fault("write to a read-only page", try_write(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_WRITE);
    expect("after a write that faulted", 0, bits_at(TEST_VA, 1));
    expect_page_fault("ring 3 read of a supervisor page", try_user_read(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_USER);
    expect("after a ring 3 read that faulted", 0, bits_at(TEST_VA, 1));
}

/* The faulting write must not leave D in an entry that is made writable afterwards. */
static void check_faulting_then_writable(word unused)
{
    (void)unused;
    map_new(TEST_VA, 0);
    try_write(TEST_VA);
    *leaf(TEST_VA) |= WRITABLE;
    invlpg(TEST_VA);
    (void)*at(TEST_VA);
    expect("read after the page became writable", ACCESSED, bits_at(TEST_VA, 1));
    *at(TEST_VA) = 1;
    expect("write after the page became writable", BITS, bits_at(TEST_VA, 1));
}

static void check_large(word unused)
{
    word frames = frames_new_aligned(TABLE_ENTRIES);

    (void)unused;
    *entry_at(space, TEST_VA, 2) = frames | PRESENT | WRITABLE | LARGE;
    expect("before", 0, bits_at(TEST_VA, 2));
    (void)*at(TEST_VA + 3 * PAGE_BYTES);
    expect("after a read", ACCESSED, bits_at(TEST_VA, 2));
    *at(TEST_VA + 7 * PAGE_BYTES) = 7;
    expect("after a write", BITS, bits_at(TEST_VA, 2));
    expect("where it went", 7, *at(frames + 7 * PAGE_BYTES));
}

static void check_ring3(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE | USER);
    expect_none("read", try_user_read(TEST_VA));
    expect("after a read", ACCESSED, bits_at(TEST_VA, 1));
    expect_none("write", try_user_write(TEST_VA));
    expect("after a write", BITS, bits_at(TEST_VA, 1));
}

static void check_fetch(word unused)
{
    word frame = map_new(TEST_VA, WRITABLE);

    (void)unused;
    *(volatile uint8_t *)frame = 0xC3;
    expect_none("fetch", try_fetch(TEST_VA));
    expect("after a fetch", ACCESSED, bits_at(TEST_VA, 1));
}

/* The write without WP goes to an entry without W: D all the same. */
static void check_without_wp(word unused)
{
    (void)unused;
    map_new(TEST_VA, 0);
    write_cr0(read_cr0() & ~(word)CR0_WP);
    expect_none("write to a read-only page without WP", try_write(TEST_VA));
    expect("after it", BITS, bits_at(TEST_VA, 1));
}

/* CMPXCHG writes even when it does not exchange. */
static void check_failed_exchange(word unused)
{
    uint32_t expected = 1;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    __asm__ volatile("lock cmpxchgl %2, %1" : "+a"(expected), "+m"(*at(TEST_VA)) : "r"(2) : "memory");
    expect("value seen", 0, expected);
    expect("after a CMPXCHG that failed", BITS, bits_at(TEST_VA, 1));
}

static void check_string_write(word unused)
{
    enum { PAGES = 4 };

    (void)unused;
    for (unsigned i = 0; i < PAGES; i++)
        map_new(TEST_VA + i * PAGE_BYTES, WRITABLE);
    memset((void *)(TEST_VA + PAGE_BYTES - 1), 0xAA, 2 + PAGE_BYTES);
    for (unsigned i = 0; i < PAGES; i++)
        expect("pages of a REP STOS", i < 3 ? BITS : 0, bits_at(TEST_VA + i * PAGE_BYTES, 1));
}

static void check_crossing_write(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    *at(TEST_VA + PAGE_BYTES - 2) = 0x11223344;
    expect("first page", BITS, bits_at(TEST_VA, 1));
    expect("second page", BITS, bits_at(TEST_VA + PAGE_BYTES, 1));
}

/* One frame, two entries: each has its own bits. */
static void check_two_entries(word unused)
{
    word frame = map_new(TEST_VA, WRITABLE);

    (void)unused;
    map(space, TEST_VA + PAGE_BYTES, frame, WRITABLE);
    *at(TEST_VA) = 5;
    expect("entry that was used", BITS, bits_at(TEST_VA, 1));
    expect("entry that was not", 0, bits_at(TEST_VA + PAGE_BYTES, 1));
    expect("frame through the other", 5, *at(TEST_VA + PAGE_BYTES));
    expect("other after a read", ACCESSED, bits_at(TEST_VA + PAGE_BYTES, 1));
}

/* One table, two directory entries: A of the directory entries apart, the page's bits together. */
static void check_two_directory_entries(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    *entry_at(space, TEST_VA + LARGE_BYTES, 2) = *entry_at(space, TEST_VA, 2);
    *at(TEST_VA + LARGE_BYTES) = 1;
    expect("directory entry that was used", ACCESSED, bits_at(TEST_VA + LARGE_BYTES, 2));
    expect("directory entry that was not", 0, bits_at(TEST_VA, 2));
    expect("page", BITS, bits_at(TEST_VA, 1));
}

/* Cacheability and software's bits change nothing and stay as they are. */
static void check_carried(word bits)
{
    word frame = map_new(TEST_VA, WRITABLE | (entry_t)bits);

    *at(frame) = 0x1234;
    expect("read", 0x1234, *at(TEST_VA));
    *at(TEST_VA) = 0x5678;
    expect("write", 0x5678, *at(frame));
    expect("entry", frame | PRESENT | WRITABLE | BITS | (entry_t)bits, *leaf(TEST_VA));
    expect_page_fault("ring 3", try_user_read(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_USER);
}

static void check_carried_by_directory(word bits)
{
    word frame = map_new(TEST_VA, WRITABLE);

    *entry_at(space, TEST_VA, 2) |= (entry_t)bits;
    *at(TEST_VA) = 0x5678;
    expect("write", 0x5678, *at(frame));
    expect("bits", (entry_t)bits, *entry_at(space, TEST_VA, 2) & (entry_t)bits);
}

/* Bits 52 to 62 are software's in long mode. */
static void check_high_software_bits(word unused)
{
#if PAGING_LEVELS == 4
    entry_t high = (entry_t)0x7F << 52; /* bits 59 to 62 are protection keys where CR4.PKE is on */
    word frame = map_new(TEST_VA, WRITABLE | high);

    *at(TEST_VA) = 1;
    expect("entry", frame | PRESENT | WRITABLE | BITS | high, *leaf(TEST_VA));
#else
    require(false, "only long mode gives these bits to software");
#endif
    (void)unused;
}

/* CR3's own cacheability bits. */
static void check_cr3_flags(word unused)
{
    word frame = map_new(TEST_VA, WRITABLE);
    word flags = PAGING_LEVELS == 3 ? 0x18 : WRITE_THROUGH | CACHE_DISABLE;

    (void)unused;
    write_cr3((word)space | flags);
    *at(TEST_VA) = 0x77;
    expect("write", 0x77, *at(frame));
    expect("CR3", (word)space | flags, read_cr3());
}

static const struct test_case cases[] = {
    {"bits.read-sets-a", check_read, 0},
    {"bits.write-sets-d-in-the-page-only", check_write, 0},
    {"bits.upper-levels", check_upper_levels, 0},
    {"bits.write-after-read", check_write_after_read, 0},
    {"bits.cleared-and-set-again", check_cleared, 0},
    {"bits.d-cleared-alone", check_dirty_cleared_alone, 0},
    {"bits.none-by-a-faulting-access", check_faulting, 0},
    {"bits.faulting-write-then-writable", check_faulting_then_writable, 0},
    {"bits.large-page", check_large, 0},
    {"bits.ring3", check_ring3, 0},
    {"bits.fetch", check_fetch, 0},
    {"bits.write-without-wp", check_without_wp, 0},
    {"bits.failed-cmpxchg-sets-d", check_failed_exchange, 0},
    {"bits.rep-stos", check_string_write, 0},
    {"bits.write-across-pages", check_crossing_write, 0},
    {"bits.two-entries-one-frame", check_two_entries, 0},
    {"bits.two-directory-entries-one-table", check_two_directory_entries, 0},
    {"bits.pwt-carried", check_carried, WRITE_THROUGH},
    {"bits.pcd-carried", check_carried, CACHE_DISABLE},
    {"bits.pat-carried", check_carried, PAT},
    {"bits.global-carried-without-pge", check_carried, GLOBAL},
    {"bits.software-bits-carried", check_carried, SOFTWARE_BITS},
    {"bits.pwt-pcd-of-directory", check_carried_by_directory, WRITE_THROUGH | CACHE_DISABLE},
    {"bits.software-bits-of-directory", check_carried_by_directory, SOFTWARE_BITS},
    {"bits.high-software-bits", check_high_software_bits, 0},
    {"bits.pwt-pcd-of-cr3", check_cr3_flags, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
