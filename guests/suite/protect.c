/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CR0.WP, EFER.NXE, CR4.SMEP and CR4.SMAP, switched while pages are in use. */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

static const uint8_t RETURN = 0xC3;
enum { PROTECTION = ERROR_PRESENT, FETCH_ERROR = ERROR_PRESENT | ERROR_FETCH };

static void set_wp(bool on)
{
    write_cr0(on ? read_cr0() | CR0_WP : read_cr0() & ~(word)CR0_WP);
}

static void set_nxe(bool on)
{
    uint64_t efer = rdmsr(MSR_EFER);

    wrmsr(MSR_EFER, on ? efer | EFER_NXE : efer & ~(uint64_t)EFER_NXE);
}

static void check_wp(word unused)
{
    word frame = map_new(TEST_VA, 0);

    (void)unused;
    for (unsigned round = 0; round < 3; round++) {
        expect_page_fault("write with WP", try_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE);
        set_wp(false);
        *at(frame) = 0;
        expect_none("write without WP", try_write(TEST_VA));
        expect("frame", (uint32_t)TEST_VA, *at(frame));
        set_wp(true);
    }
}

/* WP is about supervisor writes: ring 3 never writes a read-only page. */
static void check_wp_and_ring3(word unused)
{
    (void)unused;
    map_new(TEST_VA, USER);
    set_wp(false);
    expect_none("supervisor write without WP", try_write(TEST_VA));
    expect_page_fault("ring 3 write after it", try_user_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE | ERROR_USER);
    expect_none("ring 3 read after it", try_user_read(TEST_VA));
    set_wp(true);
    expect_page_fault("supervisor write with WP", try_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE);
}

static void check_wp_directory(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE | USER);
    *entry_at(space, TEST_VA, 2) &= ~(entry_t)WRITABLE;
    expect_page_fault("write under a read-only table", try_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE);
    set_wp(false);
    expect_none("the same without WP", try_write(TEST_VA));
    expect_page_fault("ring 3 without WP", try_user_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE | ERROR_USER);
}

static void check_nx(word unused)
{
    (void)unused;
    require(has_nx(), "the CPU has no NX");
    *(volatile uint8_t *)map_new(TEST_VA, WRITABLE | NO_EXECUTE) = RETURN;
    expect_none("read", try_read(TEST_VA));
    expect_page_fault("fetch", try_fetch(TEST_VA), TEST_VA, FETCH_ERROR);
    *leaf(TEST_VA) &= ~NO_EXECUTE;
    invlpg(TEST_VA);
    expect_none("fetch after NX was taken away", try_fetch(TEST_VA));
    *leaf(TEST_VA) |= NO_EXECUTE;
    invlpg(TEST_VA);
    expect_page_fault("fetch after NX came back", try_fetch(TEST_VA), TEST_VA, FETCH_ERROR);
}

static void check_nx_directory(word unused)
{
    (void)unused;
    require(has_nx(), "the CPU has no NX");
    *(volatile uint8_t *)map_new(TEST_VA, 0) = RETURN;
    expect_none("fetch", try_fetch(TEST_VA));
    *entry_at(space, TEST_VA, 2) |= NO_EXECUTE;
    reload_cr3();
    expect_page_fault("fetch under a table with NX", try_fetch(TEST_VA), TEST_VA, FETCH_ERROR);
    expect_none("read under a table with NX", try_read(TEST_VA));
}

static void check_nx_large(word unused)
{
    word frames;

    (void)unused;
    require(has_nx(), "the CPU has no NX");
    frames = frames_new_aligned(TABLE_ENTRIES);
    *(volatile uint8_t *)frames = RETURN;
    *entry_at(space, TEST_VA, 2) = frames | PRESENT | LARGE | NO_EXECUTE;
    expect_page_fault("fetch", try_fetch(TEST_VA), TEST_VA, FETCH_ERROR);
    *entry_at(space, TEST_VA, 2) &= ~NO_EXECUTE;
    reload_cr3();
    expect_none("fetch without NX", try_fetch(TEST_VA));
}

/* The one page is executable through one mapping and not through the other. */
static void check_nx_two_mappings(word unused)
{
    word frame;

    (void)unused;
    require(has_nx(), "the CPU has no NX");
    frame = map_new(TEST_VA, WRITABLE | NO_EXECUTE);
    map(space, TEST_VA + PAGE_BYTES, frame, 0);
    *(volatile uint8_t *)TEST_VA = RETURN;
    expect_none("fetch through the executable mapping", try_fetch(TEST_VA + PAGE_BYTES));
    expect_page_fault("fetch through the other", try_fetch(TEST_VA), TEST_VA, FETCH_ERROR);
}

/* NXE off and on again: what F says about an absent page follows. */
static void check_nxe_switched(word unused)
{
    (void)unused;
    require(has_nx(), "the CPU has no NX");
    for (unsigned round = 0; round < 2; round++) {
        expect_page_fault("fetch with NXE", try_fetch(TEST_VA), TEST_VA, ERROR_FETCH);
        set_nxe(false);
        expect_page_fault("fetch without NXE", try_fetch(TEST_VA), TEST_VA, 0);
        set_nxe(true);
    }
}

static void check_smep(word unused)
{
    (void)unused;
    require(has_structured(STRUCTURED_SMEP), "the CPU has no SMEP");
    *(volatile uint8_t *)map_new(TEST_VA, USER) = RETURN;
    expect_none("supervisor fetch of a user page without SMEP", try_fetch(TEST_VA));
    write_cr4(read_cr4() | CR4_SMEP);
    expect_page_fault("with SMEP", try_fetch(TEST_VA), TEST_VA, FETCH_ERROR);
    expect_none("read with SMEP", try_read(TEST_VA));
    expect_none("ring 3 with SMEP", try_user_read(TEST_VA));
    write_cr4(read_cr4() & ~(word)CR4_SMEP);
    expect_none("without SMEP again", try_fetch(TEST_VA));
}

/* A page is the user's only if every level says so. */
static void check_smep_supervisor_table(word unused)
{
    (void)unused;
    require(has_structured(STRUCTURED_SMEP), "the CPU has no SMEP");
    *(volatile uint8_t *)map_new(TEST_VA, USER) = RETURN;
    *entry_at(space, TEST_VA, 2) &= ~(entry_t)USER;
    write_cr4(read_cr4() | CR4_SMEP);
    expect_none("fetch with SMEP under a supervisor table", try_fetch(TEST_VA));
}

/* F is told with SMEP even where there is no NX. */
static void check_smep_error_code(word unused)
{
    (void)unused;
    require(has_structured(STRUCTURED_SMEP), "the CPU has no SMEP");
    if (has_nx())
        set_nxe(false);
    expect_page_fault("absent page without SMEP", try_fetch(TEST_VA), TEST_VA, 0);
    write_cr4(read_cr4() | CR4_SMEP);
    expect_page_fault("absent page with SMEP", try_fetch(TEST_VA), TEST_VA, ERROR_FETCH);
}

static void read_with_ac(word va)
{
    __asm__ volatile("stac" : : : "memory");
    (void)*at(va);
    __asm__ volatile("clac" : : : "memory");
}

static void write_with_ac(word va)
{
    __asm__ volatile("stac" : : : "memory");
    *at(va) = 0x5A;
    __asm__ volatile("clac" : : : "memory");
}

static void enable_smap(void)
{
    require(has_structured(STRUCTURED_SMAP), "the CPU has no SMAP");
    write_cr4(read_cr4() | CR4_SMAP);
}

static void check_smap(word unused)
{
    word frame = map_new(TEST_VA, USER | WRITABLE);

    (void)unused;
    enable_smap();
    expect_page_fault("supervisor read", try_read(TEST_VA), TEST_VA, PROTECTION);
    expect_page_fault("supervisor write", try_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE);
    expect_none("read with AC", try(read_with_ac, TEST_VA));
    expect_none("write with AC", try(write_with_ac, TEST_VA));
    expect("frame", 0x5A, *at(frame));
    expect_page_fault("read after CLAC", try_read(TEST_VA), TEST_VA, PROTECTION);
    expect_none("ring 3 read", try_user_read(TEST_VA));
    expect_none("ring 3 write", try_user_write(TEST_VA));
    write_cr4(read_cr4() & ~(word)CR4_SMAP);
    expect_none("without SMAP", try_read(TEST_VA));
}

/* AC lifts SMAP, not the page's own protection. */
static void check_smap_read_only(word unused)
{
    (void)unused;
    map_new(TEST_VA, USER);
    enable_smap();
    expect_page_fault("write with AC", try(write_with_ac, TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE);
    set_wp(false);
    expect_none("write with AC without WP", try(write_with_ac, TEST_VA));
    expect_page_fault("write without AC, without WP", try_write(TEST_VA), TEST_VA, PROTECTION | ERROR_WRITE);
}

static void check_smap_fetch(word unused)
{
    (void)unused;
    *(volatile uint8_t *)map_new(TEST_VA, USER) = RETURN;
    enable_smap();
    expect_none("fetch of a user page under SMAP without SMEP", try_fetch(TEST_VA));
}

/* A page is under SMAP only if every level says user. */
static void check_smap_supervisor_table(word unused)
{
    (void)unused;
    map_new(TEST_VA, USER | WRITABLE);
    *entry_at(space, TEST_VA, 2) &= ~(entry_t)USER;
    enable_smap();
    expect_none("read under a supervisor table", try_read(TEST_VA));
}

/* A supervisor's page that was used becomes the user's: what the CPU has cached allowed more. */
static void check_becomes_users(word unused)
{
    (void)unused;
    *(volatile uint8_t *)map_new(TEST_VA, 0) = RETURN;
    enable_smap();
    expect_none("read of a supervisor page", try_read(TEST_VA));
    *leaf(TEST_VA) |= USER;
    invlpg(TEST_VA);
    expect_page_fault("read of a user page", try_read(TEST_VA), TEST_VA, PROTECTION);
    require(has_structured(STRUCTURED_SMEP), "the CPU has no SMEP");
    write_cr4(read_cr4() | CR4_SMEP);
    *leaf(TEST_VA) &= ~(entry_t)USER;
    invlpg(TEST_VA);
    expect_none("fetch from a supervisor page", try_fetch(TEST_VA));
    *leaf(TEST_VA) |= USER;
    invlpg(TEST_VA);
    expect_page_fault("fetch from a user page", try_fetch(TEST_VA), TEST_VA, PROTECTION | ERROR_FETCH);
}

static void set_cr4(word value)
{
    write_cr4(value);
}

/* What CPUID does not have, CR4 does not take. */
static void check_absent_features(word unused)
{
    (void)unused;
    if (!has_structured(STRUCTURED_SMEP))
        expect_trap("CR4.SMEP", try(set_cr4, read_cr4() | CR4_SMEP), VECTOR_PROTECTION, 0);
    if (!has_structured(STRUCTURED_SMAP))
        expect_trap("CR4.SMAP", try(set_cr4, read_cr4() | CR4_SMAP), VECTOR_PROTECTION, 0);
}

static const struct test_case cases[] = {
    {"wp.supervisor-write-readonly", check_wp, 0},
    {"wp.ring3-does-not-care", check_wp_and_ring3, 0},
    {"wp.readonly-table", check_wp_directory, 0},
    {"nx.page", check_nx, 0},
    {"nx.table", check_nx_directory, 0},
    {"nx.large-page", check_nx_large, 0},
    {"nx.two-mappings", check_nx_two_mappings, 0},
    {"nx.nxe-switched", check_nxe_switched, 0},
    {"smep.user-page", check_smep, 0},
    {"smep.supervisor-table", check_smep_supervisor_table, 0},
    {"smep.error-code-without-nx", check_smep_error_code, 0},
    {"smap.user-page", check_smap, 0},
    {"smap.ac-keeps-protection", check_smap_read_only, 0},
    {"smap.fetch-is-not-data", check_smap_fetch, 0},
    {"smap.supervisor-table", check_smap_supervisor_table, 0},
    {"smap.page-becomes-a-user-page", check_becomes_users, 0},
    {"protect.cr4-takes-what-cpuid-has", check_absent_features, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
