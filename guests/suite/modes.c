/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Paging modes changed at run time, in every order: off, 32-bit, PAE, long (compatibility mode). Each mode has tables
 * of its own, which map the kernel at its own address and a page of the mode's own at TEST_VA.
 */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum mode { OFF, BITS_32, PAE, LONG, MODES };

static word roots[MODES];
static word marks[MODES]; /* the frame that a mode sees at TEST_VA */
static enum mode now;

enum { DIRECTORY_ENTRIES = 512, MIB_2 = 2 << 20, TEST_GIB = TEST_VA >> 30 };

/* A directory of 64-bit entries for the first GiB: the kernel's memory, in 2 MiB pages. */
static uint64_t *kernel_directory(void)
{
    uint64_t *directory = (uint64_t *)frame_new();

    for (unsigned i = 0; i < IDENTITY_BYTES / MIB_2; i++)
        directory[i] = (uint64_t)i * MIB_2 | PRESENT | WRITABLE | LARGE;
    return directory;
}

/* And one for the GiB of TEST_VA, with the mode's own page first. */
static uint64_t *test_directory(enum mode mode)
{
    uint64_t *directory = (uint64_t *)frame_new(), *table = (uint64_t *)frame_new();

    table[0] = marks[mode] | PRESENT | WRITABLE;
    directory[0] = (word)table | PRESENT | WRITABLE;
    return directory;
}

static uint64_t *pointer_table(enum mode mode, unsigned flags)
{
    uint64_t *pointers = (uint64_t *)frame_new();

    pointers[0] = (word)kernel_directory() | flags;
    pointers[TEST_GIB] = (word)test_directory(mode) | flags;
    return pointers;
}

static void build(void)
{
    uint64_t *root;

    for (unsigned mode = 0; mode < MODES; mode++) {
        marks[mode] = frame_new();
        *at(marks[mode]) = 0x1000 + mode;
    }
    map(space, TEST_VA, marks[BITS_32], WRITABLE);
    roots[BITS_32] = (word)space;
    roots[PAE] = (word)pointer_table(PAE, PRESENT);
    root = (uint64_t *)frame_new();
    root[0] = (word)pointer_table(LONG, PRESENT | WRITABLE) | PRESENT | WRITABLE;
    roots[LONG] = (word)root;
    now = BITS_32;
}

static void set_lme(bool on)
{
    uint64_t efer;

    if (!has_efer())
        return;
    efer = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, on ? efer | EFER_LME : efer & ~(uint64_t)EFER_LME);
}

/* By way of paging off, which is the manual's only one between these. */
static void enter(enum mode mode)
{
    write_cr0(read_cr0() & ~CR0_PG);
    set_lme(mode == LONG);
    write_cr4(mode >= PAE ? read_cr4() | CR4_PAE : read_cr4() & ~(word)CR4_PAE);
    now = mode;
    if (mode == OFF)
        return;
    write_cr3(roots[mode]);
    write_cr0(read_cr0() | CR0_PG);
}

/* In long mode the suite's IDT is of the wrong shape, so no trap may happen there: come back before judging. */
static void check_mode(enum mode mode)
{
    uint32_t seen = 0, efer;

    enter(mode);
    if (mode != OFF) {
        seen = *at(TEST_VA);
        *at(TEST_VA + 8) = mode;
    }
    efer = has_efer() ? (uint32_t)rdmsr(MSR_EFER) : 0;
    enter(BITS_32);
    if (mode == OFF)
        return;
    expect("page of the mode", 0x1000 + mode, seen);
    expect("write in the mode", mode, *at(marks[mode] + 8));
    expect("LMA in the mode", mode == LONG ? EFER_LMA : 0, efer & EFER_LMA);
}

static void check_one(word mode)
{
    require(mode != LONG || has_extended(EXTENDED_LM), "the CPU has no long mode");
    build();
    check_mode((enum mode)mode);
    check_mode((enum mode)mode);
}

/* Straight from one to the other, with no stay between. */
static void check_pair(word pair)
{
    enum mode first = (enum mode)(pair / MODES), second = (enum mode)(pair % MODES);
    uint32_t seen[2] = {0};

    require(has_extended(EXTENDED_LM), "the CPU has no long mode");
    build();
    for (unsigned round = 0; round < 4; round++) {
        enter(first);
        seen[0] = first == OFF ? 0x1000 : *at(TEST_VA);
        enter(second);
        seen[1] = second == OFF ? 0x1000 : *at(TEST_VA);
    }
    enter(BITS_32);
    expect("page of the first mode", 0x1000 + first, seen[0]);
    expect("page of the second mode", 0x1000 + second, seen[1]);
}

static void check_every_order(word unused)
{
    uint32_t wrong = 0;

    (void)unused;
    require(has_extended(EXTENDED_LM), "the CPU has no long mode");
    build();
    for (unsigned i = 0; i < MODES * MODES * MODES; i++) {
        const enum mode order[] = {(enum mode)(i % MODES), (enum mode)(i / MODES % MODES), (enum mode)(i / MODES / MODES)};

        for (unsigned j = 0; j < 3; j++) {
            enter(order[j]);
            if (order[j] != OFF && *at(TEST_VA) != 0x1000u + order[j])
                wrong++;
        }
    }
    enter(BITS_32);
    expect("pages that were not the mode's", 0, wrong);
}

/* The tables change while paging is off. */
static void check_edited_while_off(word mode)
{
    word other;
    uint32_t seen;

    require(mode != LONG || has_extended(EXTENDED_LM), "the CPU has no long mode");
    build();
    other = frame_new();
    *at(other) = 0x77;
    check_mode((enum mode)mode);
    enter(OFF);
    if (mode == BITS_32)
        *leaf(TEST_VA) = other | PRESENT;
    else {
        uint64_t *table = (uint64_t *)(word)roots[mode];

        for (unsigned level = mode == LONG ? 4 : 3; level > 1; level--)
            table = (uint64_t *)(word)(table[level == 3 ? TEST_GIB : 0] & 0xFFFFF000);
        table[0] = other | PRESENT;
    }
    enter((enum mode)mode);
    seen = *at(TEST_VA);
    enter(BITS_32);
    expect("page mapped while paging was off", 0x77, seen);
}

uint32_t run_64bit(uint32_t selector); /* modes.S */

static void check_64bit_code(word unused)
{
    uint32_t seen;

    (void)unused;
    require(has_extended(EXTENDED_LM), "the CPU has no long mode");
    build();
    gdt[SPARE_SELECTOR / 8] = descriptor(0, 0xFFFFF, 0x9B, 0xA);
    for (unsigned round = 0; round < 3; round++) {
        enter(LONG);
        seen = run_64bit(SPARE_SELECTOR);
        enter(BITS_32);
        expect("result of 64-bit code", 0x44556677, seen);
    }
}

/* With paging off, addresses are physical; CR3 stays for the next time. */
static void check_paging_off_keeps_cr3(word unused)
{
    (void)unused;
    build();
    write_cr0(read_cr0() & ~CR0_PG);
    expect("CR3 with paging off", roots[BITS_32], read_cr3());
    expect("memory at its own address", 0x1000 + BITS_32, *at(marks[BITS_32]));
    write_cr0(read_cr0() | CR0_PG);
    expect("page, with paging on again", 0x1000 + BITS_32, *at(TEST_VA));
}

/* Faults after a round trip are those of 32-bit paging again. */
static void check_faults_after(word mode)
{
    require(mode != LONG || has_extended(EXTENDED_LM), "the CPU has no long mode");
    build();
    check_mode((enum mode)mode);
    expect_page_fault("read", try_read(TEST_VA + PAGE_BYTES), TEST_VA + PAGE_BYTES, 0);
    expect_page_fault("ring 3 write", try_user_write(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_WRITE | ERROR_USER);
    expect_none("ring 3 read of its own", try_user_read(USER_STACK_VA));
}

static const struct test_case cases[] = {
    {"modes.off", check_one, OFF},
    {"modes.pae", check_one, PAE},
    {"modes.long", check_one, LONG},
    {"modes.off-and-32", check_pair, OFF * MODES + BITS_32},
    {"modes.off-and-pae", check_pair, OFF * MODES + PAE},
    {"modes.off-and-long", check_pair, OFF * MODES + LONG},
    {"modes.32-and-pae", check_pair, BITS_32 * MODES + PAE},
    {"modes.32-and-long", check_pair, BITS_32 * MODES + LONG},
    {"modes.pae-and-long", check_pair, PAE * MODES + LONG},
    {"modes.every-order-of-three", check_every_order, 0},
    {"modes.32-edited-while-off", check_edited_while_off, BITS_32},
    {"modes.pae-edited-while-off", check_edited_while_off, PAE},
    {"modes.long-edited-while-off", check_edited_while_off, LONG},
    {"modes.64-bit-code", check_64bit_code, 0},
    {"modes.paging-off-keeps-cr3", check_paging_off_keeps_cr3, 0},
    {"modes.faults-after-pae", check_faults_after, PAE},
    {"modes.faults-after-long", check_faults_after, LONG},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
