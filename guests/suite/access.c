/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every right at every level, each kind of access, either ring, CR0.WP on and off: does the access fault, with which
 * error code, and what becomes of the A and D bits? The answers come from the rules of the Intel SDM, volume 3, 4.6-4.8.
 */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum access { READ, WRITE, FETCH };
enum { RING3 = 4, WITHOUT_WP = 8 }; /* with enum access, the parameter of a case */
enum { RIGHT_COMBINATIONS = 16 };

static const uint8_t RETURNS[] = {0xC3, 0xCD, USER_RETURN_VECTOR}; /* for ring 0 and, behind it, ring 3 */

/* The four bits of a combination as an entry has them; false if the format has no such bit. */
static bool rights_of(unsigned combination, entry_t *rights)
{
    *rights = (combination & 1 ? PRESENT : 0) | (combination & 2 ? WRITABLE : 0) | (combination & 4 ? USER : 0);
    if (combination & 8)
        *rights |= NO_EXECUTE;
    return !(combination & 8) || has_nx();
}

static bool is_denied(entry_t upper, entry_t leaf, unsigned kind)
{
    entry_t both = upper & leaf;
    unsigned access = kind & 3;

    if (access == FETCH && has_nx() && (upper | leaf) & NO_EXECUTE)
        return true;
    if (kind & RING3 && !(both & USER))
        return true;
    return access == WRITE && !(both & WRITABLE) && (kind & RING3 || !(kind & WITHOUT_WP));
}

/* -1: no fault. F is told only where NX can be. */
static int expected_error(entry_t upper, entry_t leaf, unsigned kind)
{
    int error = ((kind & 3) == WRITE ? ERROR_WRITE : 0) | (kind & RING3 ? ERROR_USER : 0) |
                ((kind & 3) == FETCH && has_nx() ? ERROR_FETCH : 0);

    if (!(upper & leaf & PRESENT))
        return error;
    return is_denied(upper, leaf, kind) ? error | ERROR_PRESENT : -1;
}

static struct outcome make_access(unsigned kind, word va)
{
    switch (kind & (3 | RING3)) {
    case READ:
        return try_read(va);
    case WRITE:
        return try_write(va);
    case FETCH:
        return try_fetch(va);
    case READ | RING3:
        return try_user_read(va);
    case WRITE | RING3:
        return try_user_write(va);
    default:
        return try_user_fetch(va + 1);
    }
}

static void check_bits(entry_t leaf, unsigned kind, int error)
{
    entry_t bits = leaf & (ACCESSED | DIRTY);

    if (error >= 0)
        expect("A and D of the page after a fault", 0, bits);
    else
        expect("A and D of the page after an access", (kind & 3) == WRITE ? ACCESSED | DIRTY : ACCESSED, bits);
}

static void check_one(unsigned kind, word frame, entry_t upper, entry_t leaf, unsigned level)
{
    entry_t *leaf_entry = entry_at(space, TEST_VA, 1);
    entry_t *upper_entry = entry_at(space, TEST_VA, level);
    word va = TEST_VA + ((kind & 3) == FETCH && kind & RING3 ? 1 : 0);
    int error = expected_error(upper, leaf, kind);
    struct outcome outcome;

    *leaf_entry = frame | leaf;
    *upper_entry = (*upper_entry & ENTRY_ADDRESS) | upper;
    invlpg(TEST_VA);
    *(volatile uint8_t *)frame = RETURNS[0]; /* a write may have put an address there */
    outcome = make_access(kind, TEST_VA);
    *upper_entry = (*upper_entry & ENTRY_ADDRESS) | PRESENT | WRITABLE | USER;
    if (error < 0)
        expect_none("access with every right it needs", outcome);
    else
        expect_page_fault("access without a right", outcome, va, (word)error);
    check_bits(*leaf_entry, kind, error);
}

static void check_level(unsigned kind, word frame, unsigned level)
{
    entry_t upper, leaf;

    for (unsigned i = 0; i < RIGHT_COMBINATIONS; i++)
        for (unsigned j = 0; j < RIGHT_COMBINATIONS; j++)
            if (rights_of(i, &upper) && rights_of(j, &leaf))
                check_one(kind, frame, upper, leaf, level);
}

/* PAE's root has no rights to vary. */
static void check_kind(word kind)
{
    word frame = map_new(TEST_VA, 0);

    for (unsigned i = 0; i < sizeof RETURNS; i++)
        ((volatile uint8_t *)frame)[i] = RETURNS[i];
    if (kind & WITHOUT_WP)
        write_cr0(read_cr0() & ~(word)CR0_WP);
    for (unsigned level = 2; level <= (PAGING_LEVELS == 3 ? 2 : PAGING_LEVELS); level++)
        check_level((unsigned)kind, frame, level);
}

/* Without EFER.NXE no fault tells F. */
static void check_without_nx(word unused)
{
    (void)unused;
    require(has_nx(), "the CPU has no NX");
    map_new(TEST_VA, WRITABLE | USER);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    expect_page_fault("fetch of an absent page without EFER.NXE", try_fetch(TEST_VA + PAGE_BYTES), TEST_VA + PAGE_BYTES, 0);
}

/* The instruction that faulted is the one told, and CR2 is the byte asked for, not its page. */
static void check_addresses(word unused)
{
    struct outcome outcome = try_read(TEST_VA + 0x123);

    (void)unused;
    expect_page_fault("read in the middle of a page", outcome, TEST_VA + 0x123, 0);
    expect("IP of the read", (word)probe_read, outcome.ip);
    outcome = try_user_write(TEST_VA + 0xFFC);
    expect_page_fault("ring 3 write in the middle of a page", outcome, TEST_VA + 0xFFC, ERROR_WRITE | ERROR_USER);
    expect("IP of the ring 3 write", user_probe_write(), outcome.ip);
    expect("CS of the ring 3 write", USER_CODE, outcome.cs);
}

/* Reads a word that lies across two pages, of which only the second is missing. */
static void check_crossing(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    expect_page_fault("read across the end", try_read(TEST_VA + PAGE_BYTES - 2), TEST_VA + PAGE_BYTES, 0);
    expect_page_fault("write across the end", try_write(TEST_VA + PAGE_BYTES - 2), TEST_VA + PAGE_BYTES, ERROR_WRITE);
    expect("D after a write that faulted on the next page", 0, *at(*entry_at(space, TEST_VA, 1) & ENTRY_ADDRESS) >> 16);
}

static const struct test_case cases[] = {
    {"access.supervisor-read", check_kind, READ},
    {"access.supervisor-write", check_kind, WRITE},
    {"access.supervisor-fetch", check_kind, FETCH},
    {"access.supervisor-read-no-wp", check_kind, READ | WITHOUT_WP},
    {"access.supervisor-write-no-wp", check_kind, WRITE | WITHOUT_WP},
    {"access.supervisor-fetch-no-wp", check_kind, FETCH | WITHOUT_WP},
    {"access.user-read", check_kind, READ | RING3},
    {"access.user-write", check_kind, WRITE | RING3},
    {"access.user-fetch", check_kind, FETCH | RING3},
    {"access.user-write-no-wp", check_kind, WRITE | RING3 | WITHOUT_WP},
    {"access.no-fetch-bit-without-nxe", check_without_nx, 0},
    {"access.fault-addresses", check_addresses, 0},
    {"access.across-two-pages", check_crossing, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
