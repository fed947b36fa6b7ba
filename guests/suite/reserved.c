/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reserved bits of entries (Intel SDM volume 3, 4.3-4.5; AMD volume 2, 5.3). The error code has RSVD and always P as
 * well; QEMU leaves P out.
 */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { RESERVED_ERROR = ERROR_PRESENT | ERROR_RESERVED };

static void expect_reserved(const char *what)
{
    expect_page_fault(what, try_read(TEST_VA), TEST_VA, RESERVED_ERROR);
    expect_page_fault(what, try_write(TEST_VA), TEST_VA, RESERVED_ERROR | ERROR_WRITE);
    expect_page_fault(what, try_user_read(TEST_VA), TEST_VA, RESERVED_ERROR | ERROR_USER);
}

/* An entry that is not present has no reserved bits. */
static void check_not_present(word unused)
{
    (void)unused;
    *leaf(TEST_VA) = ~(entry_t)PRESENT;
    expect_page_fault("entry with every bit but P", try_read(TEST_VA), TEST_VA, 0);
    *entry_at(space, TEST_VA, 2) = ~(entry_t)PRESENT;
    reload_cr3();
    expect_page_fault("directory entry with every bit but P", try_write(TEST_VA), TEST_VA, ERROR_WRITE);
}

static void check_large_page(word unused)
{
    unsigned bit = PAGING_LEVELS == 2 ? 21 : 13;

    (void)unused;
    for (; bit < 12 + INDEX_BITS; bit++) {
        *entry_at(space, TEST_VA, 2) = PRESENT | WRITABLE | USER | LARGE | (entry_t)1 << bit;
        invlpg(TEST_VA);
        expect_reserved("address bit below the size of a large page");
        expect("A of an entry that faulted", 0, *entry_at(space, TEST_VA, 2) & ACCESSED);
    }
}

static void check_beyond_physical(word level)
{
#if PAGING_LEVELS > 2
    entry_t *entry;
    entry_t good;

    map_new(TEST_VA, WRITABLE | USER);
    entry = entry_at(space, TEST_VA, (unsigned)level);
    good = *entry;
    for (unsigned bit = physical_address_bits(); bit < 52; bit++) {
        *entry = good | (entry_t)1 << bit;
        reload_cr3();
        expect_reserved("address bit that the CPU does not have");
    }
    *entry = good;
    invlpg(TEST_VA);
    expect_none("good again", try_read(TEST_VA));
#else
    require(false, "32-bit entries have no such bits");
    (void)level;
#endif
}

static void check_no_execute_off(word unused)
{
#if PAGING_LEVELS > 2
    require(has_nx(), "the CPU has no NX");
    map_new(TEST_VA, WRITABLE | USER | NO_EXECUTE);
    expect_none("with EFER.NXE", try_read(TEST_VA));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    reload_cr3();
    expect_reserved("bit 63 without EFER.NXE");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    reload_cr3();
    expect_none("with EFER.NXE again", try_read(TEST_VA));
#else
    require(false, "32-bit entries have no NX");
#endif
    (void)unused;
}

/* Software has bits 52 to 62 in long mode only. */
static void check_pae_high(word unused)
{
    (void)unused;
#if PAGING_LEVELS == 3
    map_new(TEST_VA, WRITABLE | USER);
    for (unsigned bit = 52; bit < 63; bit++) {
        *leaf(TEST_VA) = (*leaf(TEST_VA) & 0xFFFFFFFF) | (entry_t)1 << bit;
        invlpg(TEST_VA);
        expect_reserved("bit between 52 and 62");
    }
#else
    require(false, "only PAE reserves bits 52 to 62");
#endif
}

static void check_root_page_size(word unused)
{
    (void)unused;
#if PAGING_LEVELS == 4
    map_new(TEST_VA, WRITABLE | USER);
    *entry_at(space, TEST_VA, 4) |= LARGE;
    reload_cr3();
    expect_reserved("page size in the root");
#else
    require(false, "only long mode has four levels");
#endif
}

static void check_gib_page(word unused)
{
    (void)unused;
#if PAGING_LEVELS == 4
    bool has = has_extended(EXTENDED_GIB_PAGES);

    for (unsigned bit = 13; bit < 30; bit++) {
        *entry_at(space, TEST_VA, 3) = PRESENT | WRITABLE | USER | LARGE | (has ? (entry_t)1 << bit : 0);
        reload_cr3();
        expect_reserved(has ? "address bit below 1 GiB" : "1 GiB page that the CPU does not have");
    }
#else
    require(false, "only long mode has 1 GiB pages");
#endif
}

#if PAGING_LEVELS == 3
static void load_cr3_of(word value)
{
    write_cr3(value);
}
#endif

/*
 * PAE's root is checked when CR3 is loaded: #GP, and CR3 keeps its value. Under AMD's nested paging the entries are read
 * when they are used instead (AMD volume 2, 15.25.10).
 */
static void check_pae_root(word unused)
{
    (void)unused;
#if PAGING_LEVELS == 3
    static const uint64_t reserved[] = {1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1ull << 63};
    entry_t *other = space_new();
    struct outcome outcome;

    for (unsigned i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        other[1] |= reserved[i];
        outcome = try(load_cr3_of, (word)other);
        if (outcome.vector == NO_TRAP)
            load_space(space);
        expect_trap("CR3 load of a root with a reserved bit", outcome, VECTOR_PROTECTION, 0);
        expect("CR3 after it", (word)space, read_cr3());
        other[1] &= ~reserved[i];
    }
    other[3] = ~(entry_t)PRESENT;
    expect_none("an absent entry has no reserved bits", try(load_cr3_of, (word)other));
#else
    require(false, "only PAE loads its root into registers");
#endif
}

/* Bit 5 of such an entry is reserved, so the CPU does not set it; QEMU does. */
static void check_pae_root_untouched(word unused)
{
    (void)unused;
    require(PAGING_LEVELS == 3, "only PAE has such a root");
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    expect("A of the root's entry", 0, *entry_at(space, TEST_VA, PAGING_LEVELS) & (ACCESSED | DIRTY));
}

static const struct test_case cases[] = {
    {"reserved.not-present-has-none", check_not_present, 0},
    {"reserved.large-page-address", check_large_page, 0},
    {"reserved.page-beyond-maxphyaddr", check_beyond_physical, 1},
    {"reserved.table-beyond-maxphyaddr", check_beyond_physical, 2},
    {"reserved.bit-63-without-nxe", check_no_execute_off, 0},
    {"reserved.pae-bits-52-to-62", check_pae_high, 0},
    {"reserved.page-size-in-root", check_root_page_size, 0},
    {"reserved.gib-page-address", check_gib_page, 0},
    {"reserved.pae-root-checked-by-cr3-load", check_pae_root, 0},
    {"reserved.pae-root-has-no-a", check_pae_root_untouched, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
