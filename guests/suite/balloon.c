/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The balloon's port, call by call: what each command answers, what becomes of pages that are given away, and what a guest gets that lies
 * or goes on using them. The case in suite.toml sets a target of 256 pages at the start.
 */
#include "../lib/ports.h"
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { PORT = 0x5670, MAGIC = 0x456C6D6F, STARTED = 0x03000000, ALL_ONES = 0xFFFFFFFF };
enum { START, GET_TARGET, LOCK, UNLOCK, GUEST_ID, BATCHED_LOCK = 6, BATCHED_UNLOCK, BATCHED_2M_LOCK, DOORBELL = 10 };
enum { SUCCESS, INVALID_COMMAND, INVALID_PAGE, LOCKED, NOT_LOCKED, PINNED, NOT_NEEDED, RESET };
enum { CAN_BASIC = 2, CAN_BATCHED = 4, TARGET = 256, BATCH = 512, PPN_SHIFT = 12, STATUS_MASK = 0x1F };

static uint32_t second_answer, third_answer; /* EBX and ECX after a call */

static uint32_t call_with(uint32_t magic, uint32_t command, uint32_t first, uint32_t second)
{
    uint32_t status = magic;

    __asm__ volatile("inl %%dx, %%eax" : "+a"(status), "+c"(command), "+b"(first) : "d"(PORT), "S"(second) : "memory");
    second_answer = first;
    third_answer = command;
    return status;
}

static uint32_t call(uint32_t command, uint32_t first)
{
    return call_with(MAGIC, command, first, 0);
}

static uint32_t batch(uint32_t command, word table, uint32_t count)
{
    return call_with(MAGIC, command, table >> PPN_SHIFT, count);
}

static uint32_t page_of(word address)
{
    return address >> PPN_SHIFT;
}

static void start(void)
{
    expect("START", STARTED, call(START, CAN_BASIC | CAN_BATCHED));
}

/* A page with a number in it, used and so backed by a frame. */
static word numbered_page(uint32_t number)
{
    word page = frame_new();

    *at(page) = number;
    return page;
}

static void check_absent(word unused)
{
    uint8_t byte;

    (void)unused;
    expect("EAX without the magic number", ALL_ONES, call_with(0, START, CAN_BASIC, 0));
    expect("nearly the magic number", ALL_ONES, call_with(MAGIC + 1, GET_TARGET, 0, 0));
    __asm__ volatile("inb %%dx, %%al" : "=a"(byte) : "a"(MAGIC), "d"(PORT), "c"(START));
    expect("a byte", 0xFF, byte);
}

static void check_before_start(word unused)
{
    (void)unused;
    expect("GET_TARGET before START", RESET, call(GET_TARGET, 0));
    expect("LOCK before START", RESET, call(LOCK, page_of(frame_new())));
}

static void check_capabilities(word unused)
{
    (void)unused;
    expect("START with all capabilities", STARTED, call(START, 0xFFFFFFFF));
    expect("those granted", CAN_BASIC | CAN_BATCHED, third_answer);
    expect("START with the basic ones", SUCCESS, call(START, CAN_BASIC));
    expect("GUEST_ID", SUCCESS, call(GUEST_ID, 9));
    expect("GET_TARGET", SUCCESS, call(GET_TARGET, 0));
    expect("the target", TARGET, second_answer);
    expect("an unknown command", INVALID_COMMAND, call(DOORBELL, 0));
    expect("pages of 2 MB", INVALID_COMMAND, batch(BATCHED_2M_LOCK, frame_new(), 1));
    expect("command 5", INVALID_COMMAND, call(5, 0));
}

static void check_lock(word unused)
{
    word page = numbered_page(7);

    (void)unused;
    start();
    expect("LOCK", SUCCESS, call(LOCK, page_of(page)));
    expect("with the target", TARGET, second_answer);
    expect("LOCK again", LOCKED, call(LOCK, page_of(page)));
    expect("UNLOCK", SUCCESS, call(UNLOCK, page_of(page)));
    expect("UNLOCK again", NOT_LOCKED, call(UNLOCK, page_of(page)));
    expect("the page is zero", 0, *at(page));
    *at(page) = 8;
    expect("and memory again", 8, *at(page));
    expect("no RESET for that", SUCCESS, call(GET_TARGET, 0));
}

static void check_lies(word unused)
{
    static const uint32_t none[] = {0xA0, 0xB8, 0xBF, 0xF0, 0xFF, 0xFEE00, 0xFEC00, 0xFFFFF, 0x2000, 0x80000, 0x7FFFFFFF, 0xFFFFFFFF};

    (void)unused;
    start();
    for (unsigned i = 0; i < sizeof none / sizeof *none; i++) {
        expect("LOCK of no memory", INVALID_PAGE, call(LOCK, none[i]));
        expect("UNLOCK of no memory", INVALID_PAGE, call(UNLOCK, none[i]));
    }
    expect("UNLOCK of a page never locked", NOT_LOCKED, call(UNLOCK, page_of(frame_new())));
}

static void check_not_needed(word unused)
{
    word first = frames_new_aligned(TARGET);
    word more = frame_new();

    (void)unused;
    start();
    for (unsigned i = 0; i < TARGET; i++)
        expect("LOCK up to the target", SUCCESS, call(LOCK, page_of(first) + i));
    expect("LOCK beyond it", NOT_NEEDED, call(LOCK, page_of(more)));
    expect("UNLOCK", SUCCESS, call(UNLOCK, page_of(first)));
    expect("makes room", SUCCESS, call(LOCK, page_of(more)));
}

static void check_batch(word unused)
{
    uint64_t *entries = (uint64_t *)frame_new();
    word pages[8];

    (void)unused;
    start();
    for (unsigned i = 0; i < 8; i++) {
        pages[i] = numbered_page(i);
        entries[i] = (uint64_t)pages[i] | STATUS_MASK;
    }
    entries[3] = entries[2];
    entries[5] = 0xA0000;
    entries[6] |= 0x40; /* a reserved bit */
    entries[7] = 0xFFFFFFFFFFFFF000;
    expect("BATCHED_LOCK", SUCCESS, batch(BATCHED_LOCK, (word)entries, 8));
    expect("with the target", TARGET, second_answer);
    for (unsigned i = 0; i < 8; i++) {
        unsigned due = i == 3 ? LOCKED : i >= 5 ? INVALID_PAGE : SUCCESS;

        expect("an entry's status", due, entries[i] & STATUS_MASK);
    }
    expect("its page number stays", (uint64_t)pages[0] | SUCCESS, entries[0]);
    expect("BATCHED_UNLOCK", SUCCESS, batch(BATCHED_UNLOCK, (word)entries, 5));
    expect("the one named twice", NOT_LOCKED, entries[3] & STATUS_MASK);
    for (unsigned i = 0; i < 5; i++)
        if (i != 3)
            expect("a page is zero", 0, *at(pages[i]));
    expect("no entry", INVALID_COMMAND, batch(BATCHED_LOCK, (word)entries, 0));
    expect("too many", INVALID_COMMAND, batch(BATCHED_LOCK, (word)entries, BATCH + 1));
    expect("a table beyond memory", INVALID_PAGE, call_with(MAGIC, BATCHED_LOCK, 0x7FFFFFF, 1));
    expect("a table in the ROM", INVALID_PAGE, call_with(MAGIC, BATCHED_LOCK, 0xF0, 1));
}

static void check_full_batch(word unused)
{
    uint64_t *entries = (uint64_t *)frame_new();
    word first = frames_new_aligned(BATCH);

    (void)unused;
    start();
    for (unsigned i = 0; i < BATCH; i++) {
        *at(first + i * PAGE_BYTES) = i;
        entries[i] = first + i * PAGE_BYTES;
    }
    expect("BATCHED_LOCK of 512", SUCCESS, batch(BATCHED_LOCK, (word)entries, BATCH));
    for (unsigned i = 0; i < BATCH; i++)
        expect("an entry's status", i < TARGET ? SUCCESS : NOT_NEEDED, entries[i] & STATUS_MASK);
    expect("what was not needed is there", TARGET, *at(first + TARGET * PAGE_BYTES));
}

/* A balloon page is touched: the guest gets zeros and a RESET, and its other pages are memory again after START. */
static void check_pop(word by_store)
{
    word page = numbered_page(1), other = numbered_page(2), mapped = TEST_VA;

    map(space, mapped, page, WRITABLE);
    expect("mapped twice", 1, *at(mapped));
    start();
    expect("LOCK", SUCCESS, call(LOCK, page_of(page)));
    expect("LOCK", SUCCESS, call(LOCK, page_of(other)));
    if (by_store)
        *at(mapped) = 3;
    else
        expect("a load of a page that was given away", 0, *at(mapped));
    expect("what is there now", by_store ? 3 : 0, *at(page));
    expect("the next call", RESET, call(GET_TARGET, 0));
    expect("and the next", RESET, call(LOCK, page_of(frame_new())));
    start();
    expect("UNLOCK of what START forgot", NOT_LOCKED, call(UNLOCK, page_of(other)));
    expect("it is memory again", 0, *at(other));
    expect("without a RESET", SUCCESS, call(GET_TARGET, 0));
}

static void check_locked_table(word unused)
{
    word page = numbered_page(5), table;

    (void)unused;
    map(space, TEST_VA, page, WRITABLE);
    expect("mapped", 5, *at(TEST_VA));
    table = (word)table_of(*entry_at(space, TEST_VA, 2));
    start();
    expect("LOCK of a page table in use", SUCCESS, call(LOCK, page_of(table)));
    expect_page_fault("it is empty now", try_read(TEST_VA), TEST_VA, 0);
    expect("and popped", RESET, call(GET_TARGET, 0));
    start();
    map(space, TEST_VA, page, WRITABLE);
    expect("a table again", 5, *at(TEST_VA));
}

static void check_out_of_sync_table(word unused)
{
    word page = numbered_page(6);
    entry_t *table;

    (void)unused;
    map(space, TEST_VA, page, WRITABLE);
    table = table_of(*entry_at(space, TEST_VA, 2));
    expect("in use", 6, *at(TEST_VA));
    for (unsigned i = 1; i < 64; i++)
        table[i] = page | PRESENT;
    start();
    expect("LOCK of a table that is written in bulk", SUCCESS, call(LOCK, page_of((word)table)));
    expect_page_fault("all of it is gone", try_read(TEST_VA + PAGE_BYTES), TEST_VA + PAGE_BYTES, 0);
    call(START, 0);
}

static void run_code(word entry)
{
    ((void (*)(void))entry)();
}

/* Code is given away and made anew at the same place: the old must not run. */
static void check_locked_code(word unused)
{
    word page = frame_new();
    uint8_t *code = (uint8_t *)page;

    (void)unused;
    code[0] = 0xC3; /* RET */
    expect_none("it runs", try(run_code, page));
    start();
    expect("LOCK of code", SUCCESS, call(LOCK, page_of(page)));
    code[0] = 0xCC; /* INT3 */
    expect_trap("what is there now runs", try(run_code, page), VECTOR_BREAKPOINT, 0);
    expect("and popped", RESET, call(GET_TARGET, 0));
    call(START, 0);
}

/* The page of entries is in its own batch. */
static void check_table_in_batch(word unused)
{
    uint64_t *entries = (uint64_t *)frame_new();
    word page = numbered_page(1);

    (void)unused;
    start();
    entries[0] = page;
    entries[1] = (word)entries;
    entries[2] = page;
    expect("BATCHED_LOCK", SUCCESS, batch(BATCHED_LOCK, (word)entries, 3));
    expect("nothing was popped", SUCCESS, call(GET_TARGET, 0));
    expect("the page before", (word)page | SUCCESS, entries[0]);
    expect("the table itself", (word)entries | PINNED, entries[1]);
    expect("the page again", (word)page | LOCKED, entries[2]);
    expect("LOCK of a table", SUCCESS, call(LOCK, page_of((word)entries)));
    expect("that is then used", RESET, batch(BATCHED_LOCK, (word)entries, 1));
    call(START, 0);
}

/* A handler's stack is given away: the processor's own push brings it back. */
static void check_locked_stack(word unused)
{
    word stack = frame_new();

    (void)unused;
    set_trap_stack(stack + PAGE_BYTES);
    *at(stack) = 1;
    start();
    expect("LOCK of the stack for traps", SUCCESS, call(LOCK, page_of(stack)));
    expect_none("ring 3 comes back through it", try_user_read(USER_STACK_VA));
    expect("popped by the processor", RESET, call(GET_TARGET, 0));
    expect("and zero beside what was pushed", 0, *at(stack));
    call(START, 0);
}

static void check_user(word unused)
{
    (void)unused;
    expect_trap("ring 3 without the port's bit", try_user(USER_CODE_VA, 0), VECTOR_PROTECTION, 0);
}

static void put_user_code(word unused)
{
    static const uint8_t code[] = {0x66, 0xBA, 0x70, 0x56, 0xED}; /* mov dx, 5670 ; in eax, dx */
    word frame = frame_new();

    memcpy((void *)frame, code, sizeof code);
    *leaf(USER_CODE_VA) = frame | PRESENT | USER;
    reload_cr3();
    check_user(unused);
}

static const struct test_case cases[] = {
    {"balloon.before-start", check_before_start, 0},
    {"balloon.absent", check_absent, 0},
    {"balloon.capabilities", check_capabilities, 0},
    {"balloon.lock", check_lock, 0},
    {"balloon.lies", check_lies, 0},
    {"balloon.not-needed", check_not_needed, 0},
    {"balloon.batch", check_batch, 0},
    {"balloon.full-batch", check_full_batch, 0},
    {"balloon.popped-by-load", check_pop, 0},
    {"balloon.popped-by-store", check_pop, 1},
    {"balloon.page-table", check_locked_table, 0},
    {"balloon.out-of-sync-table", check_out_of_sync_table, 0},
    {"balloon.code", check_locked_code, 0},
    {"balloon.table-in-batch", check_table_in_batch, 0},
    {"balloon.stack", check_locked_stack, 0},
    {"balloon.ring-3", put_user_code, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
