/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest may rely on about translations that the CPU has cached (Intel SDM volume 3, 4.10). */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { PROTECTION_WRITE = ERROR_PRESENT | ERROR_WRITE };

/* Ways to make a change be seen, the parameters of cases. */
enum flush { BY_INVLPG, BY_CR3, BY_PGE, BY_CR0_PG, BY_OTHER_SPACE };

static void flush(word how, word va)
{
    switch (how) {
    case BY_INVLPG:
        invlpg(va);
        break;
    case BY_CR3:
        reload_cr3();
        break;
    case BY_PGE:
        write_cr4(read_cr4() ^ CR4_PGE);
        write_cr4(read_cr4() ^ CR4_PGE);
        break;
    case BY_CR0_PG:
        write_cr0(read_cr0() & ~CR0_PG);
        write_cr0(read_cr0() | CR0_PG);
        break;
    default:
        load_space(space_new());
        load_space(space);
    }
}

static void check_read_only(word how)
{
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    *leaf(TEST_VA) &= ~(entry_t)WRITABLE;
    flush(how, TEST_VA);
    expect_page_fault("write after W was taken away", try_write(TEST_VA), TEST_VA, PROTECTION_WRITE);
    expect("contents", 1, *at(TEST_VA));
}

static void check_absent(word how)
{
    map_new(TEST_VA, WRITABLE | USER);
    *at(TEST_VA) = 1;
    expect_none("ring 3 read", try_user_read(TEST_VA));
    *leaf(TEST_VA) &= ~(entry_t)PRESENT;
    flush(how, TEST_VA);
    expect_page_fault("read after P was taken away", try_read(TEST_VA), TEST_VA, 0);
    expect_page_fault("ring 3 read after P was taken away", try_user_read(TEST_VA), TEST_VA, ERROR_USER);
}

static void check_supervisor(word how)
{
    map_new(TEST_VA, WRITABLE | USER);
    expect_none("ring 3 write", try_user_write(TEST_VA));
    *leaf(TEST_VA) &= ~(entry_t)USER;
    flush(how, TEST_VA);
    expect_page_fault("ring 3 write after U was taken away", try_user_write(TEST_VA), TEST_VA,
                      PROTECTION_WRITE | ERROR_USER);
}

static void check_moved(word how)
{
    word second = frame_new();

    *at(map_new(TEST_VA, WRITABLE)) = 1;
    *at(second) = 2;
    expect("before", 1, *at(TEST_VA));
    map(space, TEST_VA, second, WRITABLE);
    flush(how, TEST_VA);
    expect("after", 2, *at(TEST_VA));
}

static void check_table_moved(word how)
{
    word second = frame_new();
    entry_t *table = (entry_t *)frame_new();

    *at(map_new(TEST_VA, WRITABLE)) = 1;
    *at(second) = 2;
    table[index_of(TEST_VA, 1)] = second | PRESENT | WRITABLE;
    expect("before", 1, *at(TEST_VA));
    *entry_at(space, TEST_VA, 2) = (word)table | PRESENT | WRITABLE;
    flush(how, TEST_VA);
    expect("after", 2, *at(TEST_VA));
}

static void check_table_read_only(word how)
{
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    *entry_at(space, TEST_VA, 2) &= ~(entry_t)WRITABLE;
    flush(how, TEST_VA);
    expect_page_fault("write after the table lost W", try_write(TEST_VA), TEST_VA, PROTECTION_WRITE);
}

/* Something was absent and now is there: nothing is cached about it, so nothing need be flushed. */
static void check_made_present(word unused)
{
    (void)unused;
    expect_page_fault("absent", try_read(TEST_VA), TEST_VA, 0);
    *at(map_new(TEST_VA, WRITABLE)) = 3;
    expect("there without a flush", 3, *at(TEST_VA));
}

static void check_table_made_present(word unused)
{
    entry_t entry;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    entry = *entry_at(space, TEST_VA, 2);
    *entry_at(space, TEST_VA, 2) = 0;
    reload_cr3();
    expect_page_fault("absent table", try_read(TEST_VA), TEST_VA, 0);
    *entry_at(space, TEST_VA, 2) = entry;
    expect_none("there without a flush", try_read(TEST_VA));
}

/* More rights: the CPU may fault once more from what it cached, and then must look again. */
static bool hook_spurious(struct frame *frame)
{
    return frame->vector == VECTOR_PAGE_FAULT;
}

static void check_made_writable(word unused)
{
    (void)unused;
    map_new(TEST_VA, 0);
    expect_page_fault("write to a read-only page", try_write(TEST_VA), TEST_VA, PROTECTION_WRITE);
    *leaf(TEST_VA) |= WRITABLE;
    trap_hook = hook_spurious;
    *at(TEST_VA) = 4;
    expect("write after W was given", 4, *at(TEST_VA));
}

static void check_made_user(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA) = 1;
    expect_page_fault("ring 3 read of a supervisor page", try_user_read(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_USER);
    *leaf(TEST_VA) |= USER;
    trap_hook = hook_spurious;
    expect_none("ring 3 read after U was given", try_user_write(TEST_VA));
}

static void check_made_executable(word unused)
{
    (void)unused;
    require(has_nx(), "the CPU has no NX");
    *(volatile uint8_t *)map_new(TEST_VA, NO_EXECUTE) = 0xC3;
    expect_page_fault("fetch", try_fetch(TEST_VA), TEST_VA, ERROR_PRESENT | ERROR_FETCH);
    *leaf(TEST_VA) &= ~NO_EXECUTE;
    trap_hook = hook_spurious;
    expect_none("fetch after NX was taken away", try_fetch(TEST_VA));
}

/* A fault drops what is cached for its address (4.10.4.1), so trying again needs no INVLPG. */
static bool hook_repair(struct frame *frame)
{
    if (frame->vector != VECTOR_PAGE_FAULT)
        return false;
    *leaf(TEST_VA) |= WRITABLE;
    return true;
}

static void check_repaired_in_handler(word unused)
{
    (void)unused;
    map_new(TEST_VA, 0);
    (void)*at(TEST_VA);
    trap_hook = hook_repair;
    *at(TEST_VA) = 5;
    expect("write that was repaired", 5, *at(TEST_VA));
}

/* A global page keeps working over CR3 loads; its change is seen after INVLPG or a toggle of PGE. */
static void check_global(word how)
{
    word second = frame_new();

    write_cr4(read_cr4() | CR4_PGE);
    *at(map_new(TEST_VA, WRITABLE | GLOBAL)) = 1;
    *at(second) = 2;
    expect("before", 1, *at(TEST_VA));
    reload_cr3();
    expect("unchanged, after a CR3 load", 1, *at(TEST_VA));
    map(space, TEST_VA, second, WRITABLE | GLOBAL);
    flush(how, TEST_VA);
    expect("after", 2, *at(TEST_VA));
}

/* In a space that does not map it, a global page may or may not be seen; back in the first it must be. */
static void check_global_other_space(word unused)
{
    (void)unused;
    write_cr4(read_cr4() | CR4_PGE);
    map_new(TEST_VA, WRITABLE | GLOBAL);
    *at(TEST_VA) = 6;
    load_space(space_new());
    load_space(space);
    expect("back in its space", 6, *at(TEST_VA));
}

/* Beside global pages, the others go at a CR3 load. */
static void check_not_global(word unused)
{
    word second = frame_new();

    (void)unused;
    write_cr4(read_cr4() | CR4_PGE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE | GLOBAL);
    *at(map_new(TEST_VA, WRITABLE)) = 1;
    *at(second) = 2;
    *at(TEST_VA + PAGE_BYTES) = *at(TEST_VA);
    map(space, TEST_VA, second, WRITABLE);
    reload_cr3();
    expect("page that is not global", 2, *at(TEST_VA));
    expect("global neighbour", 1, *at(TEST_VA + PAGE_BYTES));
}

/* Without PGE, G means nothing. */
static void check_global_without_pge(word unused)
{
    word second = frame_new();

    (void)unused;
    *at(map_new(TEST_VA, WRITABLE | GLOBAL)) = 1;
    *at(second) = 2;
    expect("before", 1, *at(TEST_VA));
    map(space, TEST_VA, second, WRITABLE | GLOBAL);
    reload_cr3();
    expect("after a CR3 load", 2, *at(TEST_VA));
}

/* Two addresses of one frame: INVLPG of one leaves the other in order. */
static void check_alias(word unused)
{
    word frame = map_new(TEST_VA, WRITABLE);

    (void)unused;
    map(space, TEST_VA + LARGE_BYTES, frame, WRITABLE);
    *at(TEST_VA) = 1;
    *at(TEST_VA + LARGE_BYTES) = 2;
    *leaf(TEST_VA) = 0;
    invlpg(TEST_VA);
    expect_page_fault("unmapped address", try_read(TEST_VA), TEST_VA, 0);
    expect("other address", 2, *at(TEST_VA + LARGE_BYTES));
}

static void check_many_spaces(word unused)
{
    enum { SPACES = 24, ROUNDS = 4 };
    entry_t *spaces[SPACES];

    (void)unused;
    for (unsigned i = 0; i < SPACES; i++) {
        word frame = frame_new();

        spaces[i] = space_new();
        map(spaces[i], TEST_VA, frame, WRITABLE);
        *at(frame) = i;
    }
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < SPACES; i++) {
            load_space(spaces[i]);
            expect("space", i + round, *at(TEST_VA));
            *at(TEST_VA) = i + round + 1;
        }
    load_space(space);
}

static const struct test_case cases[] = {
    {"tlb.read-only-by-invlpg", check_read_only, BY_INVLPG},
    {"tlb.read-only-by-cr3", check_read_only, BY_CR3},
    {"tlb.read-only-by-pge", check_read_only, BY_PGE},
    {"tlb.read-only-by-other-space", check_read_only, BY_OTHER_SPACE},
    {"tlb.absent-by-invlpg", check_absent, BY_INVLPG},
    {"tlb.absent-by-cr3", check_absent, BY_CR3},
    {"tlb.supervisor-by-invlpg", check_supervisor, BY_INVLPG},
    {"tlb.supervisor-by-cr3", check_supervisor, BY_CR3},
    {"tlb.moved-by-invlpg", check_moved, BY_INVLPG},
    {"tlb.moved-by-cr3", check_moved, BY_CR3},
    {"tlb.moved-by-other-space", check_moved, BY_OTHER_SPACE},
    {"tlb.table-moved-by-invlpg", check_table_moved, BY_INVLPG},
    {"tlb.table-moved-by-cr3", check_table_moved, BY_CR3},
    {"tlb.table-read-only-by-invlpg", check_table_read_only, BY_INVLPG},
    {"tlb.table-read-only-by-cr3", check_table_read_only, BY_CR3},
    {"tlb.made-present", check_made_present, 0},
    {"tlb.table-made-present", check_table_made_present, 0},
    {"tlb.made-writable", check_made_writable, 0},
    {"tlb.made-user", check_made_user, 0},
    {"tlb.made-executable", check_made_executable, 0},
    {"tlb.repaired-in-handler", check_repaired_in_handler, 0},
    {"tlb.global-by-invlpg", check_global, BY_INVLPG},
    {"tlb.global-by-pge", check_global, BY_PGE},
    {"tlb.global-and-other-space", check_global_other_space, 0},
    {"tlb.not-global-beside-global", check_not_global, 0},
    {"tlb.global-without-pge", check_global_without_pge, 0},
    {"tlb.alias", check_alias, 0},
    {"tlb.many-spaces", check_many_spaces, 0},
#if PAGING_LEVELS < 4
    {"tlb.moved-by-paging-off", check_moved, BY_CR0_PG},
    {"tlb.read-only-by-paging-off", check_read_only, BY_CR0_PG},
#endif
};

void suite_main(void)
{
    RUN_CASES(cases);
}
