/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that changes, code across pages, and instructions that fault in their middle. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

static const uint8_t RETURN_VALUE[] = {0xB8, 0, 0, 0, 0, 0xC3}; /* MOV EAX, 0; RET; the number is at byte 1 */
enum { NUMBER = 1 };

static uint32_t call(word va)
{
    return ((uint32_t(*)(void))va)();
}

static void put_code(word va)
{
    for (unsigned i = 0; i < sizeof RETURN_VALUE; i++)
        ((volatile uint8_t *)va)[i] = RETURN_VALUE[i];
}

static volatile uint8_t *byte_at(word va)
{
    return (volatile uint8_t *)va;
}

static void check_self_modifying(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    put_code(TEST_VA);
    for (unsigned round = 1; round < 200; round++) {
        *byte_at(TEST_VA + NUMBER) = (uint8_t)round;
        expect("number in the code", round & 0xFF, call(TEST_VA));
    }
}

/* Code that changes the instruction behind the one that runs. */
static void check_next_instruction(word unused)
{
    /* MOVB [DI], imm8 patches the number of the MOV that follows a jump to it. */
    static const uint8_t code[] = {0xC6, 0x07, 0x2A, 0xEB, 0x00, 0xB8, 0x01, 0, 0, 0, 0xC3};
    uint32_t value;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    memcpy((void *)TEST_VA, code, sizeof code);
    for (unsigned round = 0; round < 3; round++) {
        *byte_at(TEST_VA + 6) = 1;
        __asm__ volatile("call *%1" : "=a"(value) : "r"((word)TEST_VA), "D"((word)TEST_VA + 6) : "memory");
        expect("number patched by the code itself", 0x2A, value);
    }
}

static void check_other_mapping(word unused)
{
    word frame = map_new(TEST_VA, 0);
    word alias = TEST_VA + LARGE_BYTES;

    (void)unused;
    map(space, alias, frame, WRITABLE);
    put_code(frame);
    for (unsigned round = 1; round < 100; round++) {
        *byte_at((round & 1 ? alias : frame) + NUMBER) = (uint8_t)round;
        expect("code changed by another mapping", round, call(TEST_VA));
    }
}

/* The page under the code is exchanged. */
static void check_exchanged_page(word unused)
{
    word frames[2] = {map_new(TEST_VA, 0), frame_new()};

    (void)unused;
    put_code(frames[0]);
    put_code(frames[1]);
    *byte_at(frames[0] + NUMBER) = 1;
    *byte_at(frames[1] + NUMBER) = 2;
    for (unsigned round = 0; round < 20; round++) {
        map(space, TEST_VA, frames[round & 1], 0);
        invlpg(TEST_VA);
        expect("code of the page mapped now", (round & 1) + 1, call(TEST_VA));
    }
}

/* The same code at two addresses, and a relative call in it, so that where it runs matters. */
static void check_two_addresses(word unused)
{
    static const uint8_t code[] = {0xE8, 0, 0, 0, 0, 0x58, 0xC3}; /* CALL next; POP AX; RET: its own address */
    word frame = map_new(TEST_VA, 0);

    (void)unused;
    map(space, TEST_VA + LARGE_BYTES, frame, 0);
    memcpy((void *)frame, code, sizeof code);
    for (unsigned round = 0; round < 4; round++) {
        expect("address of the first mapping", (uint32_t)TEST_VA + 5, call(TEST_VA));
        expect("address of the second", (uint32_t)TEST_VA + LARGE_BYTES + 5, call(TEST_VA + LARGE_BYTES));
    }
}

/* Three bytes of the MOV lie in the one page, three in the next. */
static void check_across_pages(word unused)
{
    word start = TEST_VA + PAGE_BYTES - 3;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    put_code(start);
    for (unsigned round = 1; round < 50; round++) {
        *byte_at(start + NUMBER) = (uint8_t)round;     /* first page */
        *byte_at(start + NUMBER + 3) = (uint8_t)round; /* second page */
        expect("instruction across two pages", round << 24 | round, call(start));
    }
}

static void check_across_pages_second_absent(word unused)
{
    word start = TEST_VA + PAGE_BYTES - 3;
    word fetch = has_nx() ? ERROR_FETCH : 0;
    struct outcome outcome;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    put_code(start);
    expect("whole instruction", 0, call(start));
    *leaf(TEST_VA + PAGE_BYTES) &= ~(entry_t)PRESENT;
    invlpg(TEST_VA + PAGE_BYTES);
    outcome = try_fetch(start);
    expect_page_fault("second page absent", outcome, TEST_VA + PAGE_BYTES, fetch);
    expect("IP at the instruction's start", start, outcome.ip);
    *leaf(TEST_VA + PAGE_BYTES) |= PRESENT;
    expect("whole again", 0, call(start));
}

static void check_across_pages_second_nx(word unused)
{
    word start = TEST_VA + PAGE_BYTES - 3;
    struct outcome outcome;

    (void)unused;
    require(has_nx(), "the CPU has no NX");
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE | NO_EXECUTE);
    put_code(start);
    outcome = try_fetch(start);
    expect_page_fault("second page not executable", outcome, TEST_VA + PAGE_BYTES, ERROR_PRESENT | ERROR_FETCH);
    expect("IP at the instruction's start", start, outcome.ip);
}

/* The second page is exchanged between runs of the instruction. */
static void check_across_pages_second_moved(word unused)
{
    word start = TEST_VA + PAGE_BYTES - 3;
    word frames[2];

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    frames[0] = map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    put_code(start);
    frames[1] = frame_new();
    memcpy((void *)frames[1], (void *)frames[0], PAGE_BYTES);
    *byte_at(frames[1]) = 9;
    for (unsigned round = 0; round < 6; round++) {
        map(space, TEST_VA + PAGE_BYTES, frames[round & 1], 0);
        invlpg(TEST_VA + PAGE_BYTES);
        expect("instruction with its end exchanged", round & 1 ? 9 << 16 : 0, call(start));
    }
}

static void rep_stos(word count)
{
    word target = TEST_VA + PAGE_BYTES - 16;

    __asm__ volatile("rep stosl" : "+D"(target), "+c"(count) : "a"(0x5150) : "memory");
}

static void check_rep_stos(word unused)
{
    struct outcome outcome;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    outcome = try(rep_stos, 10);
    expect_page_fault("second page absent", outcome, TEST_VA + PAGE_BYTES, ERROR_WRITE);
    expect("DI at the fault", TEST_VA + PAGE_BYTES, outcome.frame.di);
    expect("CX at the fault", 6, outcome.frame.cx);
    expect("what was stored", 0x5150, *at(TEST_VA + PAGE_BYTES - 4));
}

static void rep_movs(word count)
{
    word target = TEST_VA + 4 * PAGE_BYTES - 8, source = TEST_VA + PAGE_BYTES - 12;

    __asm__ volatile("rep movsl" : "+D"(target), "+S"(source), "+c"(count) : : "memory");
}

static void check_rep_movs(word unused)
{
    struct outcome outcome;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + 3 * PAGE_BYTES, WRITABLE);
    outcome = try(rep_movs, 8);
    expect_page_fault("target's second page absent", outcome, TEST_VA + 4 * PAGE_BYTES, ERROR_WRITE);
    expect("DI at the fault", TEST_VA + 4 * PAGE_BYTES, outcome.frame.di);
    expect("SI at the fault", TEST_VA + PAGE_BYTES - 4, outcome.frame.si);
    expect("CX at the fault", 6, outcome.frame.cx);
    map_new(TEST_VA + 4 * PAGE_BYTES, WRITABLE);
    outcome = try(rep_movs, 8);
    expect_page_fault("source's second page absent", outcome, TEST_VA + PAGE_BYTES, 0);
    expect("DI at the second fault", TEST_VA + 4 * PAGE_BYTES + 4, outcome.frame.di);
    expect("CX at the second fault", 5, outcome.frame.cx);
}

/* Each page appears as the string reaches it; downwards with DF. */
static unsigned appeared;

static bool hook_appear(struct frame *frame)
{
    if (frame->vector != VECTOR_PAGE_FAULT || frame->error & ERROR_PRESENT)
        return false;
    map_new(read_cr2() & -(word)PAGE_BYTES, WRITABLE);
    appeared++;
    return true;
}

static void check_rep_resumed(word unused)
{
    (void)unused;
    appeared = 0;
    trap_hook = hook_appear;
    memset((void *)(TEST_VA + 100), 0x77, 5 * PAGE_BYTES);
    expect("pages made", 6, appeared);
    for (unsigned i = 0; i < 5 * PAGE_BYTES; i += 4)
        expect("stored", 0x77777777, *at(TEST_VA + 100 + i));
    expect("before", 0, *byte_at(TEST_VA + 99));
    expect("after", 0, *byte_at(TEST_VA + 100 + 5 * PAGE_BYTES));
}

static void check_rep_backwards(word unused)
{
    word target = TEST_VA + 3 * PAGE_BYTES - 4, count = 3 * PAGE_BYTES / 4;

    (void)unused;
    appeared = 0;
    trap_hook = hook_appear;
    __asm__ volatile("std; rep stosl; cld" : "+D"(target), "+c"(count) : "a"(0x1357) : "memory");
    expect("pages made", 3, appeared);
    expect("first word", 0x1357, *at(TEST_VA));
    expect("DI at the end", TEST_VA - 4, target);
}

static void check_rep_cmps(word unused)
{
    word left = TEST_VA, right = TEST_VA + 8 * PAGE_BYTES, count = 2 * PAGE_BYTES;

    (void)unused;
    appeared = 0;
    trap_hook = hook_appear;
    *byte_at(TEST_VA + PAGE_BYTES + 9) = 1;
    __asm__ volatile("repe cmpsb" : "+S"(left), "+D"(right), "+c"(count) : : "memory", "cc");
    expect("pages made", 4, appeared);
    expect("where they differ", TEST_VA + PAGE_BYTES + 10, left);
}

/* A read-modify-write across two pages: the second faults, the first must not be written. */
static void add_across(word va)
{
    __asm__ volatile("addl $1, (%0)" : : "r"(va) : "memory", "cc");
}

static void check_rmw_across(word unused)
{
    word va = TEST_VA + PAGE_BYTES - 2;

    (void)unused;
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, 0);
    expect_page_fault("second page read-only", try(add_across, va), TEST_VA + PAGE_BYTES, ERROR_PRESENT | ERROR_WRITE);
    expect("first page after the fault", 0, *(volatile uint16_t *)va);
    *leaf(TEST_VA + PAGE_BYTES) |= WRITABLE;
    invlpg(TEST_VA + PAGE_BYTES);
    add_across(va);
    expect("after the second page was made writable", 1, *at(va));
}

static void push_to(word stack)
{
#if PAGING_LEVELS == 4
    __asm__ volatile("movq %%rsp, %%rbx; movq %0, %%rsp; pushq $1; movq %%rbx, %%rsp" : : "r"(stack) : "rbx", "memory");
#else
    __asm__ volatile("movl %%esp, %%ebx; movl %0, %%esp; pushl $1; movl %%ebx, %%esp" : : "r"(stack) : "ebx", "memory");
#endif
}

static void pop_to_absent(word target)
{
#if PAGING_LEVELS == 4
    __asm__ volatile("pushq $7; popq (%0)" : : "D"(target) : "memory");
#else
    __asm__ volatile("pushl $7; popl (%0)" : : "D"(target) : "memory");
#endif
}

/* PUSH to a stack that is not there: SP must not move. A trap in ring 0 would need that stack, so ring 3 does it. */
static void check_push(word unused)
{
    static const uint8_t code[] = {0x6A, 0x01, 0xCD, USER_RETURN_VECTOR}; /* PUSH 1; INT */
    struct outcome outcome;

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    *leaf(USER_STACK_VA) = 0;
    invlpg(USER_STACK_VA);
    outcome = try_user(TEST_VA, 0);
    expect_page_fault("push", outcome, USER_STACK_VA + PAGE_BYTES - sizeof(word), ERROR_WRITE | ERROR_USER);
    expect("SP at the fault", USER_STACK_VA + PAGE_BYTES, outcome.frame.sp);
    expect("IP at the fault", TEST_VA, outcome.ip);
}

static void check_pop(word unused)
{
    struct outcome outcome = try(pop_to_absent, TEST_VA);

    (void)unused;
    expect_page_fault("POP to an absent page", outcome, TEST_VA, ERROR_WRITE);
    expect("DI at the fault", TEST_VA, outcome.frame.di);
    trap_hook = hook_appear;
    pop_to_absent(TEST_VA + PAGE_BYTES / 2);
    expect("POP when the page is there", 7, *at(TEST_VA + PAGE_BYTES / 2));
    push_to(TEST_VA + PAGE_BYTES);
    expect("PUSH to a stack elsewhere", 1, *at(TEST_VA + PAGE_BYTES - sizeof(word)));
}

/* Code far apart in addresses, alike in offset: what is kept of the one is not the other's. */
static void check_many_code_pages(word unused)
{
    enum { PAGES = 64 };

    (void)unused;
    for (unsigned i = 0; i < PAGES; i++) {
        word frame = map_new(TEST_VA + i * PAGE_BYTES, 0);

        put_code(frame);
        *byte_at(frame + NUMBER) = (uint8_t)i;
    }
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < PAGES; i++)
            expect("code of a page", i, call(TEST_VA + i * PAGE_BYTES));
}

/* A page of data becomes code, then data, then code. */
static void check_data_and_code(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    for (unsigned round = 0; round < 12; round++) {
        memset((void *)TEST_VA, 0x90, PAGE_BYTES);
        put_code(TEST_VA + 64);
        *byte_at(TEST_VA + 64 + NUMBER) = (uint8_t)round;
        expect("code among data", round, call(TEST_VA));
    }
}

static const struct test_case cases[] = {
    {"code.self-modifying", check_self_modifying, 0},
    {"code.patches-its-next-instruction", check_next_instruction, 0},
    {"code.written-by-another-mapping", check_other_mapping, 0},
    {"code.page-exchanged", check_exchanged_page, 0},
    {"code.two-addresses", check_two_addresses, 0},
    {"code.instruction-across-pages", check_across_pages, 0},
    {"code.instruction-across-pages-second-absent", check_across_pages_second_absent, 0},
    {"code.instruction-across-pages-second-nx", check_across_pages_second_nx, 0},
    {"code.instruction-across-pages-second-moved", check_across_pages_second_moved, 0},
    {"code.rep-stos-faults", check_rep_stos, 0},
    {"code.rep-movs-faults", check_rep_movs, 0},
    {"code.rep-stos-resumed", check_rep_resumed, 0},
    {"code.rep-stos-backwards", check_rep_backwards, 0},
    {"code.rep-cmps-resumed", check_rep_cmps, 0},
    {"code.add-across-pages", check_rmw_across, 0},
    {"code.push-faults", check_push, 0},
    {"code.pop-faults", check_pop, 0},
    {"code.many-pages", check_many_code_pages, 0},
    {"code.data-and-code-in-turns", check_data_and_code, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
