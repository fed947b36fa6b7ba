/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page tables of unusual shape, and unusual ways of writing them. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define TABLE_FLAGS (PRESENT | WRITABLE | USER)
#define TABLES_VA (TEST_VA + (word)8 * LARGE_BYTES) /* where cases map page tables */

static entry_t *directory(void)
{
    return entry_at(space, TEST_VA, 2) - index_of(TEST_VA, 2);
}

/* A page with VALUE in it. */
static word page_with(uint32_t value)
{
    word frame = frame_new();

    *at(frame) = value;
    return frame;
}

/* The table of TEST_VA, made if need be. */
static word test_table(void)
{
    return (word)leaf(TEST_VA);
}

/* The table of TEST_VA, mapped at TABLES_VA: tables as memory of the guest. */
static volatile entry_t *mapped_table(void)
{
    map(space, TABLES_VA, test_table(), WRITABLE);
    return (volatile entry_t *)TABLES_VA;
}

/* A directory that is its own table: entry N of it maps the tables, and entry N of that the directory itself. */
static void check_recursive(word unused)
{
    unsigned slot = TABLE_ENTRIES - 1;
    word window;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    window = (TEST_VA & -((word)LARGE_BYTES * TABLE_ENTRIES)) + (word)slot * LARGE_BYTES;
    directory()[slot] = (word)directory() | PRESENT | WRITABLE;
    expect("entry through the window", *leaf(TEST_VA),
           ((volatile entry_t *)(window + (word)index_of(TEST_VA, 2) * PAGE_BYTES))[0]);
    expect("directory through the window", directory()[index_of(TEST_VA, 2)],
           ((volatile entry_t *)(window + (word)slot * PAGE_BYTES))[index_of(TEST_VA, 2)]);
    expect("before", 1, *at(TEST_VA));
    ((volatile entry_t *)(window + (word)index_of(TEST_VA, 2) * PAGE_BYTES))[0] = page_with(2) | PRESENT | WRITABLE;
    invlpg(TEST_VA);
    expect("page moved through the window", 2, *at(TEST_VA));
    directory()[slot] = 0;
    reload_cr3();
    expect_page_fault("window taken away", try_read(window), window, 0);
}

/* Through the window a table can be linked that did not exist. */
static void check_recursive_new_table(word unused)
{
    unsigned slot = TABLE_ENTRIES - 1;
    word window = (TEST_VA & -((word)LARGE_BYTES * TABLE_ENTRIES)) + (word)slot * LARGE_BYTES;
    word page = TEST_VA + 3 * LARGE_BYTES;
    volatile entry_t *tables = (volatile entry_t *)(window + (word)index_of(page, 2) * PAGE_BYTES);

    (void)unused;
    directory()[slot] = (word)directory() | PRESENT | WRITABLE;
    expect_page_fault("table that is not there", try_read((word)tables), (word)tables, 0);
    ((volatile entry_t *)(window + (word)slot * PAGE_BYTES))[index_of(page, 2)] = frame_new() | TABLE_FLAGS;
    tables[index_of(page, 1)] = page_with(3) | PRESENT | WRITABLE;
    expect("page in a table linked through the window", 3, *at(page));
}

/* One frame as a directory and as a table: its entries mean both. */
static void check_two_levels(word unused)
{
    unsigned slot = index_of(TEST_VA, 2) + 4;
    word inside = TEST_VA + 4 * LARGE_BYTES + (word)index_of(TEST_VA, 2) * PAGE_BYTES;

    (void)unused;
    map(space, TEST_VA, page_with(5), WRITABLE);
    directory()[slot] = (word)directory() | TABLE_FLAGS;
    expect("the directory's entry as a page", *leaf(TEST_VA), *(volatile entry_t *)inside);
    *(volatile entry_t *)inside = page_with(6) | PRESENT | WRITABLE;
    reload_cr3();
    expect("table changed through the page", 6, *at(TEST_VA));
    expect("A of the directory entry, set by a use at either level", ACCESSED,
           directory()[index_of(TEST_VA, 2)] & ACCESSED);
}

static void check_shared_by_roots(word unused)
{
    enum { ROOTS = 6 };
    entry_t *roots[ROOTS];

    (void)unused;
    map(space, TEST_VA, page_with(0), WRITABLE);
    for (unsigned i = 0; i < ROOTS; i++) {
        roots[i] = space_new();
        *entry_at(roots[i], TEST_VA, 2) = *entry_at(space, TEST_VA, 2);
    }
    for (unsigned i = 0; i < ROOTS; i++) {
        load_space(roots[i]);
        expect("page in a shared table", i, *at(TEST_VA));
        *leaf(TEST_VA) = page_with(i + 1) | PRESENT | WRITABLE;
        invlpg(TEST_VA);
        expect("page moved in a shared table", i + 1, *at(TEST_VA));
    }
    load_space(space);
    expect("first space", ROOTS, *at(TEST_VA));
}

/* Rights differ between the two roots of a shared table. */
static void check_shared_with_rights(word unused)
{
    entry_t *other = space_new();

    (void)unused;
    map(space, TEST_VA, page_with(0), WRITABLE | USER);
    *entry_at(other, TEST_VA, 2) = *entry_at(space, TEST_VA, 2) & ~(entry_t)WRITABLE;
    for (unsigned round = 0; round < 3; round++) {
        load_space(space);
        expect_none("write in the one space", try_user_write(TEST_VA));
        load_space(other);
        expect_page_fault("write in the other", try_user_write(TEST_VA), TEST_VA,
                          ERROR_PRESENT | ERROR_WRITE | ERROR_USER);
    }
}

/* Two directory entries, one table, different rights. */
static void check_two_entries(word unused)
{
    word alias = TEST_VA + LARGE_BYTES;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE | USER);
    *entry_at(space, alias, 2) = (*entry_at(space, TEST_VA, 2) & ENTRY_ADDRESS) | PRESENT;
    for (unsigned round = 0; round < 3; round++) {
        *at(TEST_VA) = round;
        expect("read through the other entry", round, *at(alias));
        expect_page_fault("write through it", try_write(alias), alias, ERROR_PRESENT | ERROR_WRITE);
        expect_page_fault("ring 3 through it", try_user_read(alias), alias, ERROR_PRESENT | ERROR_USER);
        expect_none("ring 3 through the first", try_user_write(TEST_VA));
    }
}

/* A table's frame becomes a page of data, full of what would be bad entries, then a table again. */
static void check_freed_table(word unused)
{
    word table;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    (void)*at(TEST_VA);
    table = (word)table_of(*entry_at(space, TEST_VA, 2));
    *entry_at(space, TEST_VA, 2) = 0;
    reload_cr3();
    map(space, TABLES_VA, table, WRITABLE | USER);
    for (unsigned i = 0; i < PAGE_BYTES / 4; i++)
        at(TABLES_VA)[i] = 0xFFFFFFFF - i;
    for (unsigned i = 0; i < PAGE_BYTES / 4; i++)
        expect("data in a freed table", 0xFFFFFFFF - i, at(table)[i]);
    expect_none("ring 3 write", try_user_write(TABLES_VA));
    memset((void *)table, 0, PAGE_BYTES);
    *entry_at(space, TEST_VA, 2) = table | TABLE_FLAGS;
    map(space, TEST_VA, page_with(2), WRITABLE);
    expect("page in the table again", 2, *at(TEST_VA));
}

static void check_second_mapping(word unused)
{
    volatile entry_t *table;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    table = mapped_table();
    for (unsigned i = 1; i < 16; i++)
        table[i] = page_with(i) | PRESENT | WRITABLE;
    for (unsigned i = 1; i < 16; i++)
        expect("page mapped through the second mapping", i, *at(TEST_VA + i * PAGE_BYTES));
}

static void check_rep_stos(word unused)
{
    volatile entry_t *table;

    (void)unused;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++)
        map(space, TEST_VA + (word)i * PAGE_BYTES, page_with(i), WRITABLE);
    table = mapped_table();
    (void)*at(TEST_VA + 5 * PAGE_BYTES);
    memset((void *)&table[4], 0, 8 * sizeof *table);
    reload_cr3();
    for (unsigned i = 0; i < 16; i++) {
        word va = TEST_VA + (word)i * PAGE_BYTES;

        if (i >= 4 && i < 12)
            expect_page_fault("page of a zeroed entry", try_read(va), va, 0);
        else
            expect("page of an entry that was left", i, *at(va));
    }
}

static void check_rep_movs(word unused)
{
    word other = (word)TEST_VA + LARGE_BYTES;

    (void)unused;
    for (unsigned i = 0; i < 32; i++)
        map(space, TEST_VA + (word)i * PAGE_BYTES, page_with(i), WRITABLE);
    map(space, other, page_with(99), WRITABLE);
    expect("before", 99, *at(other));
    memcpy(table_of(*entry_at(space, other, 2)), table_of(*entry_at(space, TEST_VA, 2)), PAGE_BYTES);
    reload_cr3();
    for (unsigned i = 0; i < 32; i++)
        expect("page of a copied entry", i, *at(other + (word)i * PAGE_BYTES));
}

static void check_cmpxchg(word unused)
{
    entry_t *entry;
    word second = page_with(2);

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    expect("before", 1, *at(TEST_VA));
    entry = leaf(TEST_VA);
    expect_true("the exchange succeeds", __sync_bool_compare_and_swap((uint32_t *)entry, (uint32_t)*entry,
                                                                      (uint32_t)(second | PRESENT)));
    invlpg(TEST_VA);
    expect("after LOCK CMPXCHG", 2, *at(TEST_VA));
    expect_page_fault("its rights", try_write(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_WRITE);
}

/* Written out: a freestanding compiler may call a library for 64-bit atomics. */
static void check_cmpxchg8b(word unused)
{
    uint64_t *entry;
    uint64_t old, new;
    bool done;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    expect("before", 1, *at(TEST_VA));
    entry = (uint64_t *)leaf(TEST_VA);
    old = *entry;
    new = (old & ~(uint64_t)0xFFFFFFFF) | page_with(2) | PRESENT;
    __asm__ volatile("lock cmpxchg8b %1; sete %0"
                     : "=q"(done), "+m"(*entry)
                     : "b"((uint32_t)new), "c"((uint32_t)(new >> 32)), "a"((uint32_t)old), "d"((uint32_t)(old >> 32))
                     : "memory", "cc");
    expect_true("the exchange succeeds", done);
    invlpg(TEST_VA);
    expect("after LOCK CMPXCHG8B", 2, *at(TEST_VA));
}

static void check_xadd(word unused)
{
    entry_t *entry;
    word frames = frames_new_aligned(2);

    (void)unused;
    *at(frames) = 1;
    *at(frames + PAGE_BYTES) = 2;
    map(space, TEST_VA, frames, WRITABLE);
    expect("before", 1, *at(TEST_VA));
    entry = leaf(TEST_VA);
    __sync_fetch_and_add((uint32_t *)entry, PAGE_BYTES);
    invlpg(TEST_VA);
    expect("after LOCK XADD of a page", 2, *at(TEST_VA));
}

static void check_bit_instructions(word unused)
{
    uint32_t *entry;

    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    (void)*at(TEST_VA);
    entry = (uint32_t *)leaf(TEST_VA);
    __asm__ volatile("lock btrl $1, %0" : "+m"(*entry) : : "memory", "cc");
    invlpg(TEST_VA);
    expect_page_fault("after LOCK BTR of W", try_write(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_WRITE);
    __asm__ volatile("lock btsl $1, %0" : "+m"(*entry) : : "memory", "cc");
    invlpg(TEST_VA);
    expect_none("after LOCK BTS of W", try_write(TEST_VA));
    __asm__ volatile("andb $0xFE, %0" : "+m"(*(uint8_t *)entry) : : "memory", "cc");
    invlpg(TEST_VA);
    expect_page_fault("after a byte AND of P", try_read(TEST_VA), TEST_VA, 0);
}

/* PUSHes COUNT words below TOP: the stack pointer is in a table meanwhile. */
static void push_words(word top, word first, word second)
{
#if PAGING_LEVELS == 4
    __asm__ volatile("movq %%rsp, %%rbx; movq %0, %%rsp; pushq %1; pushq %2; movq %%rbx, %%rsp"
                     :
                     : "r"(top), "r"(second), "r"(first)
                     : "rbx", "memory");
#else
    __asm__ volatile("movl %%esp, %%ebx; movl %0, %%esp; pushl %1; pushl %2; movl %%ebx, %%esp"
                     :
                     : "r"(top), "r"(second), "r"(first)
                     : "ebx", "memory");
#endif
}

static void check_stack(word unused)
{
    word table = (word)mapped_table();
    word second = page_with(2) | PRESENT | WRITABLE;

    (void)unused;
    *at(map_new(TEST_VA, WRITABLE)) = 1;
    expect("before", 1, *at(TEST_VA));
    push_words(table + 2 * sizeof(word), second, PAGING_LEVELS == 3 ? 0 : second);
    reload_cr3();
    expect("page mapped by PUSH", 2, *at(TEST_VA));
    *at(TEST_VA) = 3;
    if (PAGING_LEVELS != 3)
        expect("its neighbour", 3, *at(TEST_VA + PAGE_BYTES));
}

/* A trap whose frame is pushed into a page table: the entries it leaves there mean nothing good, and are not used. */
static void check_trap_frame(word unused)
{
    word table = (word)mapped_table();

    (void)unused;
    set_trap_stack(table + PAGE_BYTES);
    for (unsigned round = 0; round < 4; round++) {
        expect_none("ring 3 that returns by a trap", try_user_read(USER_STACK_VA));
        expect_true("the frame is there", *at(table + PAGE_BYTES - (PAGING_LEVELS == 4 ? 8 : 4)) == USER_DATA);
    }
    set_trap_stack(default_trap_stack());
    memset((void *)table, 0, PAGE_BYTES);
    reload_cr3();
    *at(map_new(TEST_VA, WRITABLE)) = 8;
    expect("page in the table afterwards", 8, *at(TEST_VA));
}

/* The CPU's own A and D, in a table that is mapped as a page: both views agree. */
static void check_own_bits(word unused)
{
    volatile entry_t *table = mapped_table();

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    expect("before", 0, table[0] & (ACCESSED | DIRTY));
    (void)*at(TEST_VA);
    expect("A through the mapping", ACCESSED, table[0] & (ACCESSED | DIRTY));
    *at(TEST_VA) = 1;
    expect("D through the mapping", ACCESSED | DIRTY, table[0] & (ACCESSED | DIRTY));
    expect("D of the table's own entry: nothing was written through it", 0, *leaf(TABLES_VA) & DIRTY);
}

/* A table that maps itself as a page: the store into it is its own A and D. */
static void check_maps_itself(word unused)
{
    word table = test_table();
    volatile entry_t *self = (volatile entry_t *)(TEST_VA + PAGE_BYTES);

    (void)unused;
    map(space, TEST_VA + PAGE_BYTES, table, WRITABLE);
    self[0] = page_with(1) | PRESENT | WRITABLE;
    expect("page mapped by the table itself", 1, *at(TEST_VA));
    expect("D of its own entry", DIRTY, self[1] & DIRTY);
    self[1] &= ~(entry_t)WRITABLE;
    invlpg((word)self);
    expect_page_fault("write after it made itself read-only", try_write((word)self), (word)self,
                      ERROR_PRESENT | ERROR_WRITE);
    expect("page still there", 1, *at(TEST_VA));
}

/* Code and a page table in one page: the code runs, the entries count, and both can be changed. */
static void check_code_in_table(word unused)
{
    word table = test_table();
    volatile uint8_t *code = (volatile uint8_t *)(TABLES_VA + PAGE_BYTES / 2);
    static const uint8_t RETURNS[] = {0xB8, 1, 0, 0, 0, 0xC3}; /* MOV EAX, 1; RET */

    (void)unused;
    map(space, TABLES_VA, table, WRITABLE);
    for (unsigned i = 0; i < sizeof RETURNS; i++)
        code[i] = RETURNS[i];
    for (unsigned round = 1; round < 5; round++) {
        code[1] = (uint8_t)round;
        expect("code in a table's page", round, ((uint32_t(*)(void))(word)code)());
        *leaf(TEST_VA) = page_with(round) | PRESENT | WRITABLE;
        invlpg(TEST_VA);
        expect("entry in a page of code", round, *at(TEST_VA));
    }
}

/* The directory is also an ordinary page of ring 3. */
static void check_table_is_user_page(word unused)
{
    (void)unused;
    map(space, TEST_VA, page_with(1), WRITABLE);
    map(space, TABLES_VA, test_table(), WRITABLE | USER);
    expect("before", 1, *at(TEST_VA));
    expect_none("ring 3 writes a page table", try_user_write(TABLES_VA + 8));
    *at(TABLES_VA + 8) = 0;
    expect_none("ring 3 reads it", try_user_read(TABLES_VA));
    expect("after", 1, *at(TEST_VA));
}

/* Kernels put tables for one address and pages for another in neighbouring frames, and unaligned writes cross them. */
static void check_write_across_tables(word unused)
{
    word frames = frames_new_aligned(2);
    word second = TEST_VA + LARGE_BYTES;
    entry_t last, first;

    (void)unused;
    *entry_at(space, TEST_VA, 2) = frames | TABLE_FLAGS;
    *entry_at(space, second, 2) = (frames + PAGE_BYTES) | TABLE_FLAGS;
    last = page_with(1) | PRESENT | WRITABLE;
    first = page_with(2) | PRESENT | WRITABLE;
    ((entry_t *)(frames + PAGE_BYTES))[0] = first;
    ((entry_t *)(frames + PAGE_BYTES))[-1] = last;
    expect("last page of the one table", 1, *at(second - PAGE_BYTES));
    expect("first page of the other", 2, *at(second));
    *(uint32_t *)(frames + PAGE_BYTES - 2) = 0;
    reload_cr3();
    expect_page_fault("first page after a store across both", try_read(second), second, 0);
}

static const struct test_case cases[] = {
    {"shapes.recursive", check_recursive, 0},
    {"shapes.recursive-new-table", check_recursive_new_table, 0},
    {"shapes.one-frame-at-two-levels", check_two_levels, 0},
    {"shapes.table-shared-by-roots", check_shared_by_roots, 0},
    {"shapes.table-shared-by-roots-with-other-rights", check_shared_with_rights, 0},
    {"shapes.two-directory-entries-with-other-rights", check_two_entries, 0},
    {"shapes.table-freed-and-reused", check_freed_table, 0},
    {"shapes.written-through-a-second-mapping", check_second_mapping, 0},
    {"shapes.written-by-rep-stos", check_rep_stos, 0},
    {"shapes.written-by-rep-movs", check_rep_movs, 0},
    {"shapes.written-by-lock-cmpxchg", check_cmpxchg, 0},
    {"shapes.written-by-lock-cmpxchg8b", check_cmpxchg8b, 0},
    {"shapes.written-by-lock-xadd", check_xadd, 0},
    {"shapes.written-by-bit-instructions", check_bit_instructions, 0},
    {"shapes.written-by-the-stack", check_stack, 0},
    {"shapes.written-by-a-trap-frame", check_trap_frame, 0},
    {"shapes.written-by-the-cpus-own-bits", check_own_bits, 0},
    {"shapes.table-maps-itself", check_maps_itself, 0},
    {"shapes.code-in-a-table", check_code_in_table, 0},
    {"shapes.table-is-a-user-page", check_table_is_user_page, 0},
    {"shapes.store-across-two-tables", check_write_across_tables, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
