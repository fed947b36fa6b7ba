/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What shadow MMUs of the past got wrong, a case each. */
#include "../lib/ports.h"
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define TABLE_FLAGS (PRESENT | WRITABLE | USER)
#define OTHER_VA (TEST_VA + (word)4 * LARGE_BYTES)

static word page_with(uint32_t value)
{
    word frame = frame_new();

    *at(frame) = value;
    return frame;
}

/*
 * A table is written while it is linked nowhere, then linked, again and again. From absent to present needs no flush,
 * so what was cached of the table from its last time must not be used.
 */
static void check_link_after_edit(word unused)
{
    entry_t *table = (entry_t *)frame_new();
    entry_t *slot = entry_at(space, TEST_VA, 2);

    (void)unused;
    for (unsigned round = 0; round < 32; round++) {
        for (unsigned i = 0; i < 4; i++)
            table[i] = (round + i) % 3 ? page_with(round * 4 + i) | PRESENT | WRITABLE : 0;
        *slot = (word)table | TABLE_FLAGS;
        for (unsigned i = 0; i < 4; i++) {
            word va = TEST_VA + i * PAGE_BYTES;

            if ((round + i) % 3)
                expect("page of a table linked after it was edited", round * 4 + i, *at(va));
            else
                expect_page_fault("hole in it", try_read(va), va, 0);
        }
        *slot = 0;
        reload_cr3();
    }
}

/* The same without any flush between: only absent entries become present, in a table that has been in use. */
static void check_present_without_flush(word unused)
{
    (void)unused;
    for (unsigned i = 0; i < 128; i++) {
        word va = TEST_VA + i * PAGE_BYTES;

        expect_page_fault("absent", try_read(va), va, 0);
        map(space, va, page_with(i), WRITABLE);
        expect("present without a flush", i, *at(va));
    }
}

/* Two tables, each mapped by the other as a writable page; both are edited in turns through those pages. */
static void check_mutual_tables(word unused)
{
    entry_t *first = (entry_t *)frame_new(), *second = (entry_t *)frame_new();
    volatile entry_t *second_in_first = (volatile entry_t *)(TEST_VA + PAGE_BYTES);
    volatile entry_t *first_in_second = (volatile entry_t *)(OTHER_VA + PAGE_BYTES);

    (void)unused;
    *entry_at(space, TEST_VA, 2) = (word)first | TABLE_FLAGS;
    *entry_at(space, OTHER_VA, 2) = (word)second | TABLE_FLAGS;
    first[1] = (word)second | PRESENT | WRITABLE;
    second[1] = (word)first | PRESENT | WRITABLE;
    for (unsigned round = 1; round < 24; round++) {
        second_in_first[2] = page_with(round) | PRESENT | WRITABLE;
        first_in_second[2] = page_with(round + 100) | PRESENT | WRITABLE;
        reload_cr3();
        expect("page of the second table", round, *at(OTHER_VA + 2 * PAGE_BYTES));
        expect("page of the first table", round + 100, *at(TEST_VA + 2 * PAGE_BYTES));
        *at(TEST_VA + 2 * PAGE_BYTES) = round + 200;
        expect("D of the page, through the second table", DIRTY, first_in_second[2] & DIRTY);
    }
    second_in_first[1] &= ~(entry_t)WRITABLE;
    invlpg((word)first_in_second);
    expect_page_fault("write to the first table after the second made it read-only", try_write((word)first_in_second),
                      (word)first_in_second, ERROR_PRESENT | ERROR_WRITE);
}

/* Two directory entries of one table, writable and not, ring 3 and not, used in turns and changed in turns. */
static void check_shared_table_access(word unused)
{
    static const entry_t rights[] = {PRESENT, PRESENT | WRITABLE, PRESENT | USER, PRESENT | WRITABLE | USER};
    word table;

    (void)unused;
    map(space, TEST_VA, page_with(0), WRITABLE | USER);
    table = (word)leaf(TEST_VA);
    for (unsigned i = 0; i < 16; i++) {
        entry_t of_first = rights[i % 4], of_other = rights[i / 4];

        *entry_at(space, TEST_VA, 2) = table | of_first;
        *entry_at(space, OTHER_VA, 2) = table | of_other;
        reload_cr3();
        for (unsigned round = 0; round < 2; round++) {
            expect("write by the first", of_first & WRITABLE ? NO_TRAP : VECTOR_PAGE_FAULT, try_write(TEST_VA).vector);
            expect("write by the other", of_other & WRITABLE ? NO_TRAP : VECTOR_PAGE_FAULT, try_write(OTHER_VA).vector);
            expect("ring 3 by the first", of_first & USER ? NO_TRAP : VECTOR_PAGE_FAULT, try_user_read(TEST_VA).vector);
            expect("ring 3 by the other", of_other & USER ? NO_TRAP : VECTOR_PAGE_FAULT, try_user_read(OTHER_VA).vector);
        }
    }
}

/* The same one level up: a directory shared by two entries of the level above, with other rights. */
static void check_shared_directory_access(word unused)
{
    (void)unused;
#if PAGING_LEVELS == 4
    word other = TEST_VA + ((word)1 << 30);
    entry_t *first_entry = entry_at(space, TEST_VA, 3);

    map(space, TEST_VA, page_with(7), WRITABLE | USER);
    *entry_at(space, other, 3) = (*first_entry & ENTRY_ADDRESS) | PRESENT;
    for (unsigned round = 0; round < 4; round++) {
        expect_none("write by the first", try_user_write(TEST_VA));
        expect_page_fault("write by the other", try_write(other), other, ERROR_PRESENT | ERROR_WRITE);
        expect_page_fault("ring 3 by the other", try_user_read(other), other, ERROR_PRESENT | ERROR_USER);
        expect_none("read by the other", try_read(other));
    }
#else
    require(false, "only long mode gives rights to a directory as a whole");
#endif
}

/*
 * The handler of a fault changes the tables that the fault was found in: what the MMU knew from its walk no longer
 * holds when the access is tried again.
 */
static unsigned repairs;

static bool hook_rebuild(struct frame *frame)
{
    entry_t *table;

    if (frame->vector != VECTOR_PAGE_FAULT || repairs >= 8)
        return false;
    repairs++;
    table = (entry_t *)frame_new();
    if (repairs % 2 == 0)
        table[index_of(TEST_VA, 1)] = page_with(repairs) | PRESENT;
    if (repairs == 7)
        table[index_of(TEST_VA, 1)] = page_with(repairs) | PRESENT | WRITABLE;
    *entry_at(space, TEST_VA, 2) = (word)table | TABLE_FLAGS;
    invlpg(TEST_VA);
    return true;
}

static void check_edit_between_walks(word unused)
{
    (void)unused;
    repairs = 0;
    trap_hook = hook_rebuild;
    expect_none("write that faults until the seventh table", try_write(TEST_VA));
    expect("repairs", 7, repairs);
    expect("where the write went", (uint32_t)TEST_VA, *at(TEST_VA));
}

/* The instruction that faults stores into the very table it is translated by. */
static void check_store_moves_itself(word unused)
{
    volatile entry_t *self = (volatile entry_t *)(TEST_VA + PAGE_BYTES);
    word target = frame_new();

    (void)unused;
    map(space, (word)self, (word)leaf(TEST_VA), WRITABLE);
    self[1] = target | PRESENT | WRITABLE;
    invlpg((word)self);
    self[1] = 0x1111;
    expect("store after the table moved itself away", 0x1111, *at(target + sizeof *self));
    expect("the table's entry", target | PRESENT | WRITABLE | ACCESSED | DIRTY, *leaf((word)self));
}

/* The interrupt mask of the first controller, a byte that a string input can be made to deliver. */
#define MASK_PORT 0x21

/*
 * REP INSB: the store comes from the machine's side of a port, not from the guest's own registers. The low byte of the
 * entry is what the port gives: first absent, then present and writable.
 */
static void input_byte(uint8_t value, word target)
{
    word count = 1;

    outb(MASK_PORT, value);
    __asm__ volatile("rep insb" : "+D"(target), "+c"(count) : "d"(MASK_PORT) : "memory");
}

static void check_table_written_by_input(word unused)
{
    word entry = (word)leaf(TEST_VA);

    (void)unused;
    *leaf(TEST_VA) = page_with(0xB10C);
    expect_page_fault("absent", try_read(TEST_VA), TEST_VA, 0);
    input_byte(PRESENT | WRITABLE, entry);
    expect("made present by REP INSB", 0xB10C, *at(TEST_VA));
    input_byte(PRESENT, entry);
    invlpg(TEST_VA);
    expect_page_fault("made read-only by REP INSB", try_write(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_WRITE);
    input_byte(0xFE, entry);
    invlpg(TEST_VA);
    expect_page_fault("made absent by REP INSB", try_read(TEST_VA), TEST_VA, 0);
    outb(MASK_PORT, 0xFF);
}

/* Unlinks a directory entry, frees the table, reuses it for another address, all before the next flush. */
static void check_reused_before_flush(word unused)
{
    entry_t *table;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    expect("first", 1, *at(TEST_VA));
    table = table_of(*entry_at(space, TEST_VA, 2));
    *entry_at(space, TEST_VA, 2) = 0;
    memset(table, 0, PAGE_BYTES);
    table[0] = page_with(2) | PRESENT | WRITABLE;
    *entry_at(space, OTHER_VA, 2) = (word)table | TABLE_FLAGS;
    reload_cr3();
    expect("at its new address", 2, *at(OTHER_VA));
    expect_page_fault("at its old one", try_read(TEST_VA), TEST_VA, 0);
}

/* A root is freed and becomes a page of data, then the root of another space. */
static void check_reused_root(word unused)
{
    entry_t *other = space_new();

    (void)unused;
    map(other, TEST_VA, page_with(1), WRITABLE);
    load_space(other);
    expect("in the space", 1, *at(TEST_VA));
    load_space(space);
    map(space, TEST_VA, (word)other, WRITABLE | USER);
    *at(TEST_VA + PAGE_BYTES - 4) = 0xDA7A;
    expect("data in the old root", 0xDA7A, *at((word)other + PAGE_BYTES - 4));
    expect_none("ring 3 writes the old root", try_user_write(TEST_VA + PAGE_BYTES - 8));
    memcpy(other, space, PAGE_BYTES);
    load_space(other);
    expect("the new space", 0xFFFFFFFFu & *at((word)other), *at(TEST_VA));
    load_space(space);
}

#if PAGING_LEVELS == 4
/*
 * The root is a table of every level at once, in use as each, and is then written in bulk: its shadows are dropped, the walked one among
 * them, and made anew in other frames. The processor must be on the new root before an old frame serves as something else.
 */
static void check_root_written_in_bulk(word unused)
{
    enum { SELF = 510, FIRST = 300, COUNT = 64 };
    const word own = 0xFFFF000000000000 | (word)SELF << 39 | (word)SELF << 30 | (word)SELF << 21 | (word)SELF << 12;
    const word page = page_with(1234);

    (void)unused;
    for (unsigned round = 0; round < 8; round++) {
        word next = page_with(round);
        void *target = &space[FIRST];
        word count = COUNT;

        space[SELF] = (word)space | TABLE_FLAGS;
        reload_cr3();
        map(space, TEST_VA, page, WRITABLE);
        expect("a page", 1234, *at(TEST_VA));
        expect("the root as a page of its own", space[SELF] & 0xFFFFF000, *at(own + SELF * 8) & 0xFFFFF000);
        expect("as a page table", (uint32_t)space[0] & 0xFFFFF000, *at(own) & 0xFFFFF000);
        __asm__ volatile("rep stosq" : "+D"(target), "+c"(count) : "a"((word)0) : "memory");
        map(space, TEST_VA + PAGE_BYTES, next, WRITABLE);
        expect("the page still", 1234, *at(TEST_VA));
        expect("another", round, *at(TEST_VA + PAGE_BYTES));
        expect("the root still", space[SELF] & 0xFFFFF000, *at(own + SELF * 8) & 0xFFFFF000);
    }
}
#endif

static const struct test_case cases[] = {
    {"regressions.unsync-child-linked-again", check_link_after_edit, 0},
    {"regressions.present-without-flush", check_present_without_flush, 0},
    {"regressions.tables-that-map-each-other", check_mutual_tables, 0},
    {"regressions.two-pdes-one-table-other-access", check_shared_table_access, 0},
    {"regressions.two-pdpes-one-directory-other-access", check_shared_directory_access, 0},
    {"regressions.edit-between-walk-and-use", check_edit_between_walks, 0},
    {"regressions.store-that-moves-itself", check_store_moves_itself, 0},
    {"regressions.table-written-by-the-machine", check_table_written_by_input, 0},
    {"regressions.table-reused-before-the-flush", check_reused_before_flush, 0},
    {"regressions.root-reused", check_reused_root, 0},
#if PAGING_LEVELS == 4
    {"regressions.root-in-bulk", check_root_written_in_bulk, 0},
#endif
};

void suite_main(void)
{
    RUN_CASES(cases);
}
