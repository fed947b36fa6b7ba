/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random task switches: descriptors, segments, selectors, pages and ways of switching by chance (of a fixed seed), each
 * compared with a model of the manual's rules (Intel SDM volume 3, chapter 8): which fault, with which error code, in
 * which of the two tasks; or none.
 */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/tasks.h"
#include "lib/traps.h"

enum { CASES = 8, TRIES = 500, VECTOR = 0x90, PAGES = 2, LOCAL = 4, FLAT = 0xC, LIMIT_32 = 103, LIMIT_16 = 43, BYTES_MAX = 104 };
enum how { CALL, JUMP, INTERRUPT, EXCEPTION, RETURN, HOWS };
enum page { ABSENT, READ_ONLY, READ_WRITE };
#define LOCAL_VA (TEST_VA + 4 * PAGE_BYTES)
#define RPL_MASK 0xFFFCu

/* What one try is about. */
static struct {
    enum how how;
    unsigned selector;     /* what the instruction or the gate names */
    bool by_gate;          /* a far CALL or JMP by a task gate in the table */
    unsigned access, limit;/* of TASK_A's descriptor */
    word base;
    enum page pages[PAGES];
    bool elsewhere;        /* the new task's space lacks the local table */
    unsigned ldt, segment[6];
    unsigned spare_access; /* of SPARE_SEGMENT and of the one segment in the local table */
    unsigned spare_limit;
    uint32_t flags;
} t;

static uint32_t state;

static unsigned random(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (state >> 4) % below;
}

#define PICK(table) ((table)[random(sizeof(table) / sizeof *(table))])

static void choose(void)
{
    static const uint8_t task_types[] = {0x89, 0x89, 0x89, 0x89, 0x89, 0x8B, 0x81, 0x83, 0x09, 0x01, 0xE9, 0x82, 0x80, 0x88, 0x8E, 0x86};
    static const uint8_t segment_types[] = {0x9B, 0x99, 0x9F, 0x93, 0x91, 0x97, 0x9A, 0x92, 0xFB, 0xF3, 0xFF, 0x1B, 0x13, 0x82, 0x89};
    static const uint16_t code[] = {KERNEL_CODE, KERNEL_CODE, KERNEL_CODE, KERNEL_CODE, USER_CODE32, SPARE_SEGMENT, SPARE_SEGMENT | 3,
                                    8 | LOCAL, KERNEL_DATA, 0, BEYOND_TABLE, KERNEL_CODE | 1};
    static const uint16_t data[] = {KERNEL_DATA, KERNEL_DATA, KERNEL_DATA, USER_DATA, SPARE_SEGMENT, SPARE_SEGMENT | 3, 8 | LOCAL,
                                    KERNEL_CODE, 0, 3, BEYOND_TABLE, USER_CODE32, TASK_STATE};
    static const uint16_t stack[] = {KERNEL_DATA, KERNEL_DATA, KERNEL_DATA, KERNEL_DATA, USER_DATA, SPARE_SEGMENT, SPARE_SEGMENT | 3,
                                     8 | LOCAL, 0, BEYOND_TABLE, KERNEL_CODE};
    static const uint16_t tables[] = {0, 0, 0, LOCAL_TABLE, LOCAL_TABLE, LOCAL_TABLE, SPARE_SEGMENT, LOCAL_TABLE | LOCAL, BEYOND_TABLE};
    static const uint16_t tasks[] = {TASK_A, TASK_A, TASK_A, TASK_A, TASK_A, TASK_A, TASK_A | 3, BEYOND_TABLE, TASK_A | LOCAL, LOCAL_TABLE};

    t.how = (enum how)random(HOWS);
    t.by_gate = t.how <= JUMP && random(3) == 0;
    t.selector = PICK(tasks);
    if (t.how <= JUMP && !t.by_gate && t.selector & LOCAL)
        t.selector = TASK_A;
    t.access = PICK(task_types) | (t.how == RETURN && random(4) ? 2 : 0);
    t.limit = random(4) ? LIMIT_32 : random(120);
    t.base = TEST_VA + (random(2) ? 4 * random(512) : PAGE_BYTES - random(BYTES_MAX));
    for (unsigned i = 0; i < PAGES; i++)
        t.pages[i] = random(6) ? READ_WRITE : ABSENT;
    if (t.how != JUMP && t.how != RETURN && random(8) == 0)
        t.pages[0] = READ_ONLY; /* where the link goes; elsewhere the fault's own task could not save this one */
    t.elsewhere = random(4) == 0;
    t.ldt = PICK(tables);
    t.segment[0] = PICK(data);
    t.segment[1] = PICK(code);
    t.segment[2] = PICK(stack);
    for (unsigned i = 3; i < 6; i++)
        t.segment[i] = random(2) ? KERNEL_DATA : PICK(data);
    t.spare_access = PICK(segment_types);
    t.spare_limit = random(4) ? 0xFFFFF : 15;
    t.flags = FLAG_FIXED | (random(2) ? FLAG_CARRY : 0) | (random(2) ? FLAG_DIRECTION : 0) | (random(16) ? 0 : FLAG_VM) |
              (random(4) ? 0 : FLAG_IOPL_3);
}

/* ---- the model ---- */

static unsigned external(void)
{
    return t.how == EXCEPTION;
}

static struct caught fault(unsigned vector, uint32_t error, unsigned task)
{
    return (struct caught){vector, error, task};
}

static struct caught selector_fault(unsigned vector, unsigned selector, unsigned task)
{
    return fault(vector, (selector & RPL_MASK) | external(), task);
}

/* Faults in pages of the new segment: 0, or the error code with bit 31 set. */
static uint32_t page_fault(word from, word to, bool write)
{
    for (word page = (from - TEST_VA) / PAGE_BYTES; page <= (to - TEST_VA) / PAGE_BYTES; page++) {
        if (page >= PAGES || t.pages[page] == ABSENT)
            return 1u << 31 | (write ? ERROR_WRITE : 0);
        if (write && t.pages[page] == READ_ONLY && read_cr0() & CR0_WP)
            return 1u << 31 | ERROR_PRESENT | ERROR_WRITE;
    }
    return 0;
}

static bool has_local_table(void)
{
    return t.ldt == LOCAL_TABLE;
}

/* 0 where there is none, else access byte | limit << 8. */
static uint32_t segment_of(unsigned selector)
{
    unsigned limit = t.spare_limit;

    switch (selector & RPL_MASK) {
    case KERNEL_CODE: return 0x9B | 0xFFFFF << 8;
    case KERNEL_DATA: return 0x93 | 0xFFFFF << 8;
    case USER_CODE32 & RPL_MASK: return 0xFB | 0xFFFFF << 8;
    case USER_DATA & RPL_MASK: return 0xF3 | 0xFFFFF << 8;
    case TASK_STATE: return TASK_BUSY;
    case SPARE_SEGMENT: return t.spare_access | limit << 8;
    case 8 | LOCAL: return has_local_table() ? t.spare_access | limit << 8 : 0;
    default: return 0;
    }
}

static bool suits(unsigned place, unsigned selector, unsigned access, unsigned level)
{
    unsigned ring = access >> 5 & 3, rpl = selector & 3;
    bool code = access & 8, conforming = code && access & 4;

    if (!(access & 0x10))
        return false;
    if (place == 1)
        return code && (conforming ? ring <= rpl : ring == rpl);
    if (place == 2)
        return !code && access & 2 && ring == level && rpl == level;
    return (!code || access & 2) && (conforming || (ring >= level && ring >= rpl));
}

static struct caught segments(void)
{
    static const unsigned order[] = {1, 2, 0, 3, 4, 5};
    unsigned level = t.segment[1] & 3;

    for (unsigned i = 0; i < 6; i++) {
        unsigned place = order[i], selector = t.segment[place];
        uint32_t found = segment_of(selector);

        if (!(selector & RPL_MASK)) {
            if (place == 1 || place == 2)
                return selector_fault(VECTOR_INVALID_TSS, selector, TASK_A);
            continue;
        }
        if ((selector & RPL_MASK) == (8 | LOCAL) && has_local_table() && t.elsewhere)
            return fault(VECTOR_PAGE_FAULT, 0, TASK_A);
        if (!found || !suits(place, selector, found & 0xFF, level))
            return selector_fault(VECTOR_INVALID_TSS, selector, TASK_A);
        if (!(found & 0x80))
            return selector_fault(place == 2 ? VECTOR_STACK : VECTOR_NOT_PRESENT, selector, TASK_A);
    }
    if (segment_of(t.segment[1]) >> 8 == 15)
        return fault(VECTOR_PROTECTION, external(), TASK_A);
    if (level)
        return fault(VECTOR_PAGE_FAULT, ERROR_PRESENT | ERROR_USER | (has_nx() ? ERROR_FETCH : 0), TASK_A);
    return fault(NO_TRAP, 0, 0);
}

static struct caught in_new_task(void)
{
    if (t.ldt & RPL_MASK && (t.ldt & LOCAL || t.ldt == BEYOND_TABLE || (t.ldt == SPARE_SEGMENT && t.spare_access != LDT_PRESENT)))
        return selector_fault(VECTOR_INVALID_TSS, t.ldt, TASK_A);
    if (t.flags & FLAG_VM) /* and EIP is beyond 64 KiB */
        return fault(VECTOR_PROTECTION, external(), TASK_A);
    return segments();
}

static struct caught expected(void)
{
    unsigned refused = t.how == RETURN ? VECTOR_INVALID_TSS : VECTOR_PROTECTION;
    unsigned type = t.access & 0x1F, least = type & 8 ? LIMIT_32 : LIMIT_16;
    bool direct = t.how <= JUMP && !t.by_gate;
    uint32_t error;

    if (t.selector & LOCAL || (t.selector & RPL_MASK) != TASK_A || (type & 0x17) != (t.how == RETURN ? 3 : 1))
        return selector_fault(refused, t.selector, TASK_STATE);
    if (direct && (t.access >> 5 & 3) < (t.selector & 3))
        return selector_fault(refused, t.selector, TASK_STATE);
    if (!(t.access & 0x80))
        return selector_fault(VECTOR_NOT_PRESENT, t.selector, TASK_STATE);
    if (t.limit < least)
        return selector_fault(VECTOR_INVALID_TSS, t.selector, TASK_STATE);
    error = t.how == JUMP || t.how == RETURN ? 0 : page_fault(t.base, t.base + 1, true);
    if (!error)
        error = page_fault(t.base, t.base + least, false);
    if (error)
        return fault(VECTOR_PAGE_FAULT, error & 0xFFFF, TASK_STATE);
    return in_new_task();
}

/* ---- the machine ---- */

static entry_t *other;

static void set_pages(bool all)
{
    for (unsigned i = 0; i < PAGES; i++) {
        *leaf(TEST_VA + i * PAGE_BYTES) &= ~(entry_t)(PRESENT | WRITABLE);
        if (all || t.pages[i] != ABSENT)
            *leaf(TEST_VA + i * PAGE_BYTES) |= PRESENT | (all || t.pages[i] == READ_WRITE ? WRITABLE : 0);
    }
    reload_cr3();
}

static void fill_segment(void)
{
    uint32_t root = (uint32_t)(t.elsewhere ? other : space);

    for (unsigned i = 0; i < BYTES_MAX / 4 + 1; i++)
        ((uint32_t *)t.base)[i] = state + i;
    if (!(t.access & 8)) { /* 16 bits: EIP has no room for the kernel's addresses, so only what comes before is tried */
        t.limit %= LIMIT_16;
        return;
    }
    ((uint32_t *)t.base)[TASK_CR3] = root;
    ((uint32_t *)t.base)[TASK_EIP] = (uint32_t)landing_task;
    ((uint32_t *)t.base)[TASK_EFLAGS] = t.flags;
    for (unsigned i = 0; i < 6; i++)
        ((uint32_t *)t.base)[TASK_ES + i] = t.segment[i];
    ((uint32_t *)t.base)[TASK_LDT] = t.ldt;
    ((uint32_t *)t.base)[TASK_TRAP] = 0;
}

static void set_up(void)
{
    tasks_reset();
    set_pages(true);
    fill_segment();
    ((uint64_t *)LOCAL_VA)[1] = descriptor(0, t.spare_limit, t.spare_access, t.spare_limit == 15 ? 4 : FLAT);
    task_gdt[LOCAL_TABLE / 8] = descriptor(LOCAL_VA, 15, LDT_PRESENT, 0);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, t.spare_limit, t.spare_access, t.spare_limit == 15 ? 4 : FLAT);
    task_gdt[TASK_A / 8] = descriptor((uint32_t)t.base, t.limit, t.access, 0);
    task_gdt[GATE / 8] = task_gate(t.selector, 0);
    set_task_gate(VECTOR, t.selector, 0);
    set_task_gate(VECTOR_INVALID_OPCODE, t.selector, 0);
    task_state[TASK_LINK] = t.selector;
    set_pages(false);
}

static void int_n(word unused)
{
    (void)unused;
    __asm__ volatile("int %0" : : "i"(VECTOR));
}

static void undefined(word unused)
{
    (void)unused;
    __asm__ volatile("ud2");
}

static struct caught attempt(void)
{
    unsigned selector = t.by_gate ? GATE : t.selector;

    switch (t.how) {
    case CALL: return try_task(call_task, selector);
    case JUMP: return try_task(jump_task, selector);
    case INTERRUPT: return try_task(int_n, 0);
    case EXCEPTION: return try_task(undefined, 0);
    default: return try_task(return_task, 0);
    }
}

static void check_try(void)
{
    struct caught model, seen;
    unsigned access;

    choose();
    set_up();
    model = expected();
    seen = attempt();
    access = access_of(TASK_A);
    load_space(space);
    expect("vector", model.vector, seen.vector);
    expect("error code", model.error, seen.error);
    expect("task that it interrupted", model.link, seen.link & RPL_MASK);
    expect("type and busy bit of the task", model.link == TASK_STATE ? t.access : t.access | 2, access);
}

static void check(word number)
{
    state = 0x9E3779B9u * ((uint32_t)number + 1);
    other = space_new();
    for (unsigned i = 0; i < PAGES; i++)
        map(other, TEST_VA + i * PAGE_BYTES, map_new(TEST_VA + i * PAGE_BYTES, WRITABLE), WRITABLE);
    map_new(LOCAL_VA, WRITABLE);
    for (unsigned i = 0; i < TRIES; i++)
        check_try();
}

static const struct test_case cases[] = {
    {"taskfuzz.0", check, 0}, {"taskfuzz.1", check, 1}, {"taskfuzz.2", check, 2}, {"taskfuzz.3", check, 3},
    {"taskfuzz.4", check, 4}, {"taskfuzz.5", check, 5}, {"taskfuzz.6", check, 6}, {"taskfuzz.7", check, 7},
};
_Static_assert(sizeof cases / sizeof *cases == CASES, "a seed each");

void suite_main(void)
{
    RUN_CASES(cases);
}
