/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the manual says and QEMU 7.2 does not do, apart from reserved bits (reserved.c). */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

/*
 * INT with a vector that ring 3 may not use: #GP with the gate's number times 8 and the IDT flag.
 * QEMU multiplies by 16 in long mode.
 */
static void check_int_from_ring3(word unused)
{
    static const uint8_t code[] = {0xCD, 0x82, 0xCD, USER_RETURN_VECTOR};

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    expect_trap("INT without the right", try_user(TEST_VA, 0), VECTOR_PROTECTION, 0x82 * 8 + 2);
    set_gate(0x82, stub_of(0x82), 3);
    expect("INT with the right", 0x82, try_user(TEST_VA, 0).vector);
}

static void set_cr0(word value)
{
    write_cr0(value);
}

static void set_efer(word value)
{
    wrmsr(MSR_EFER, value);
}

static void read_msr(word msr)
{
    (void)rdmsr((uint32_t)msr);
}

static void write_msr(word msr)
{
    wrmsr((uint32_t)msr, 0);
}

static void check_absent_msrs(word unused)
{
    (void)unused;
    expect_trap("RDMSR of what is not there", try(read_msr, 0x4000BAD0), VECTOR_PROTECTION, 0);
    expect_trap("WRMSR of what is not there", try(write_msr, 0x4000BAD0), VECTOR_PROTECTION, 0);
}

static void check_efer_reserved(word unused)
{
    word efer;

    (void)unused;
    require(has_efer(), "the CPU has no EFER");
    efer = (word)rdmsr(MSR_EFER);
    expect_trap("EFER with a reserved bit", try(set_efer, efer | 1 << 19), VECTOR_PROTECTION, 0);
    expect("EFER after it", efer, rdmsr(MSR_EFER));
}

/* LME may not change while paging is on. */
static void check_lme_while_paging(word unused)
{
    word efer;
    struct outcome outcome;
    uint64_t seen;

    (void)unused;
    require(has_extended(EXTENDED_LM), "the CPU has no long mode");
    efer = (word)rdmsr(MSR_EFER);
    outcome = try(set_efer, efer ^ EFER_LME);
    seen = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, efer);
    expect_trap("change of LME", outcome, VECTOR_PROTECTION, 0);
    expect("EFER after it", efer, seen);
}

static void check_not_write_through(word unused)
{
    (void)unused;
    expect_trap("CR0.NW without CD", try(set_cr0, (read_cr0() | (word)1 << 29) & ~CR0_CD), VECTOR_PROTECTION, 0);
}

/* The entries of PAE's root are read when CR3 is loaded, and not again before the next load. */
static void check_pae_root_kept(word unused)
{
    (void)unused;
    require(PAGING_LEVELS == 3, "only PAE has such a root");
    *at(map_new(TEST_VA, WRITABLE)) = 5;
    *entry_at(space, TEST_VA, PAGING_LEVELS) &= ~(entry_t)PRESENT;
    invlpg(TEST_VA);
    expect("page under an entry that is gone from memory only", 5, *at(TEST_VA));
    reload_cr3();
    expect_page_fault("after a CR3 load", try_read(TEST_VA), TEST_VA, 0);
}

#if PAGING_LEVELS == 4
static void set_cr8(word value)
{
    __asm__ volatile("movq %0, %%cr8" : : "r"(value));
}

static void check_cr8(word unused)
{
    (void)unused;
    expect_trap("CR8 above 15", try(set_cr8, 16), VECTOR_PROTECTION, 0);
}
#endif

static const struct test_case cases[] = {
    {"manual.int-from-ring3", check_int_from_ring3, 0},
    {"manual.absent-msrs", check_absent_msrs, 0},
    {"manual.efer-reserved-bits", check_efer_reserved, 0},
    {"manual.lme-while-paging", check_lme_while_paging, 0},
    {"manual.nw-without-cd", check_not_write_through, 0},
    {"manual.pae-root-kept-until-cr3-load", check_pae_root_kept, 0},
#if PAGING_LEVELS == 4
    {"manual.cr8-above-15", check_cr8, 0},
#endif
};

void suite_main(void)
{
    RUN_CASES(cases);
}
