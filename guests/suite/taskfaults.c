/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What goes wrong in a task switch: faults of the old task, after which the instruction must run again as if nothing had
 * been, and faults of the new one (Intel SDM volume 3, tables 8-1 and 8-2). Each is seen by a task of its own.
 */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/tasks.h"
#include "lib/traps.h"

enum { CODE = 0x9B, EXECUTE_ONLY = 0x99, CONFORMING = 0x9F, DATA = 0x93, READ_ONLY = 0x91, LDT = 0x82, ABSENT = 0x80, RING_3 = 0x60 };
enum { LOCAL = 4, FLAT_32 = 0xC };

/* ---- the task's own descriptor ---- */

static void check_descriptor(word unused)
{
    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    set_access(TASK_A, TASK_AVAILABLE & ~ABSENT);
    expect_caught("absent task", try_task(call_task, TASK_A), VECTOR_NOT_PRESENT, TASK_A, TASK_STATE);
    set_access(TASK_A, TASK_BUSY);
    expect_caught("busy task", try_task(call_task, TASK_A), VECTOR_PROTECTION, TASK_A, TASK_STATE);
    expect_caught("busy task, by JMP", try_task(jump_task, TASK_A), VECTOR_PROTECTION, TASK_A, TASK_STATE);
    set_access(TASK_A, LDT);
    expect_caught("no task", try_task(call_task, TASK_A), VECTOR_PROTECTION, TASK_A, TASK_STATE);
    expect_caught("itself", try_task(call_task, TASK_STATE), VECTOR_PROTECTION, TASK_STATE, TASK_STATE);
    expect_caught("beyond the table", try_task(call_task, BEYOND_TABLE), VECTOR_PROTECTION, BEYOND_TABLE, TASK_STATE);
    expect("turns", 0, task_turns);
}

static void check_limit(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    task_gdt[TASK_A / 8] = descriptor((uint32_t)task, TASK_BYTES - 2, TASK_AVAILABLE, 0);
    expect_caught("short segment", try_task(call_task, TASK_A), VECTOR_INVALID_TSS, TASK_A, TASK_STATE);
    task_gdt[TASK_A / 8] = descriptor((uint32_t)task, 42, 0x81, 0);
    expect_caught("short 16-bit segment", try_task(call_task, TASK_A), VECTOR_INVALID_TSS, TASK_A, TASK_STATE);
    expect("its busy bit", 0x81, access_of(TASK_A));
}

/* The segment in use was loaded with a limit that holds no state. */
static void check_old_limit(word unused)
{
    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    task_gdt[TASK_B / 8] = descriptor((uint32_t)task_state, 0x5C, TASK_AVAILABLE, 0);
    __asm__ volatile("ltr %w0" : : "r"(TASK_B));
    set_gate(VECTOR_INVALID_TSS, stub_of(VECTOR_INVALID_TSS), 0);
    expect_trap("CALL", try(call_task, TASK_A), VECTOR_INVALID_TSS, TASK_B);
}

static void check_local_descriptor(word unused)
{
    uint64_t *table = (uint64_t *)frame_new();

    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    table[1] = task_gdt[TASK_A / 8];
    task_gdt[LOCAL_TABLE / 8] = descriptor((uint32_t)table, 15, LDT_PRESENT, 0);
    __asm__ volatile("lldt %w0" : : "r"(LOCAL_TABLE));
    expect_caught("task in the local table", try_task(call_task, 8 | LOCAL), VECTOR_PROTECTION, 8 | LOCAL, TASK_STATE);
    task_gdt[GATE / 8] = task_gate(8 | LOCAL, 0);
    __asm__ volatile("lldt %w0" : : "r"(LOCAL_TABLE));
    expect_caught("by a gate", try_task(call_task, GATE), VECTOR_PROTECTION, 8 | LOCAL, TASK_STATE);
    __asm__ volatile("lldt %w0" : : "r"(0));
}

static void undefined(word unused)
{
    (void)unused;
    __asm__ volatile("ud2");
}

static void int_n(word unused)
{
    (void)unused;
    __asm__ volatile("int $0x90");
}

/* A gate that leads nowhere: the error code tells who came, by its EXT bit. */
static void check_gate_target(word unused)
{
    (void)unused;
    tasks_reset();
    set_task_gate(0x90, TASK_A, 0);
    expect_caught("INT to no task", try_task(int_n, 0), VECTOR_PROTECTION, TASK_A, TASK_STATE);
    task_new(TASK_A, counting_task, 0);
    set_access(TASK_A, TASK_AVAILABLE & ~ABSENT);
    expect_caught("INT to an absent task", try_task(int_n, 0), VECTOR_NOT_PRESENT, TASK_A, TASK_STATE);
}

static void check_external(word unused)
{
    (void)unused;
    tasks_reset();
    set_task_gate(VECTOR_INVALID_OPCODE, TASK_A, 0);
    expect_caught("UD2 to no task", try_task(undefined, 0), VECTOR_PROTECTION, TASK_A | 1, TASK_STATE);
    task_new(TASK_A, counting_task, 0)[TASK_DS] = BEYOND_TABLE;
    expect_caught("UD2 to a task with a bad segment", try_task(undefined, 0), VECTOR_INVALID_TSS, BEYOND_TABLE | 1, TASK_A);
}

/* ---- IRET ---- */

static void expect_no_return(const char *what, unsigned link, unsigned vector)
{
    task_state[TASK_LINK] = link;
    expect_caught(what, try_task(return_task, 0), vector, link & 0xFFFC, TASK_STATE);
}

static void check_link(word unused)
{
    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    expect_no_return("no link", 0, VECTOR_INVALID_TSS);
    expect_no_return("link to a task that is not busy", TASK_A, VECTOR_INVALID_TSS);
    expect_no_return("link to a code segment", KERNEL_CODE, VECTOR_INVALID_TSS);
    expect_no_return("link into the local table", TASK_A | LOCAL, VECTOR_INVALID_TSS);
    expect_no_return("link beyond the table", BEYOND_TABLE, VECTOR_INVALID_TSS);
    set_access(TASK_A, TASK_BUSY & ~ABSENT);
    expect_no_return("link to an absent task", TASK_A, VECTOR_NOT_PRESENT);
    expect("turns", 0, task_turns);
}

/* ---- selectors of the new task ---- */

struct bad_segment {
    const char *what;
    unsigned word;     /* of the segment's words */
    unsigned selector; /* what stands there */
    unsigned access;   /* of the descriptor in SPARE_SEGMENT */
    unsigned vector;
};

static const struct bad_segment bad_segments[] = {
    {"local table in the local table", TASK_LDT, SPARE_SEGMENT | LOCAL, LDT, VECTOR_INVALID_TSS},
    {"local table beyond the table", TASK_LDT, BEYOND_TABLE, LDT, VECTOR_INVALID_TSS},
    {"local table that is none", TASK_LDT, SPARE_SEGMENT, DATA, VECTOR_INVALID_TSS},
    {"absent local table", TASK_LDT, SPARE_SEGMENT, LDT & ~ABSENT, VECTOR_INVALID_TSS},
    {"null CS", TASK_CS, 0, CODE, VECTOR_INVALID_TSS},
    {"CS beyond the table", TASK_CS, BEYOND_TABLE, CODE, VECTOR_INVALID_TSS},
    {"CS in no local table", TASK_CS, 8 | LOCAL, CODE, VECTOR_INVALID_TSS},
    {"data in CS", TASK_CS, SPARE_SEGMENT, DATA, VECTOR_INVALID_TSS},
    {"a task in CS", TASK_CS, SPARE_SEGMENT, TASK_AVAILABLE, VECTOR_INVALID_TSS},
    {"CS of another ring than its selector", TASK_CS, SPARE_SEGMENT, CODE | RING_3, VECTOR_INVALID_TSS},
    {"conforming CS of an outer ring", TASK_CS, SPARE_SEGMENT, CONFORMING | RING_3, VECTOR_INVALID_TSS},
    {"absent CS", TASK_CS, SPARE_SEGMENT, CODE & ~ABSENT, VECTOR_NOT_PRESENT},
    {"null SS", TASK_SS, 0, DATA, VECTOR_INVALID_TSS},
    {"SS beyond the table", TASK_SS, BEYOND_TABLE, DATA, VECTOR_INVALID_TSS},
    {"code in SS", TASK_SS, SPARE_SEGMENT, CODE, VECTOR_INVALID_TSS},
    {"read-only SS", TASK_SS, SPARE_SEGMENT, READ_ONLY, VECTOR_INVALID_TSS},
    {"SS of another ring", TASK_SS, SPARE_SEGMENT, DATA | RING_3, VECTOR_INVALID_TSS},
    {"SS with another RPL", TASK_SS, SPARE_SEGMENT | 3, DATA, VECTOR_INVALID_TSS},
    {"DS beyond the table", TASK_DS, BEYOND_TABLE, DATA, VECTOR_INVALID_TSS},
    {"code that cannot be read in ES", TASK_ES, SPARE_SEGMENT, EXECUTE_ONLY, VECTOR_INVALID_TSS},
    {"a local table in FS", TASK_FS, SPARE_SEGMENT, LDT, VECTOR_INVALID_TSS},
    {"DS of an inner ring than its RPL", TASK_DS, SPARE_SEGMENT | 3, DATA, VECTOR_INVALID_TSS},
    {"absent GS", TASK_GS, SPARE_SEGMENT, DATA & ~ABSENT, VECTOR_NOT_PRESENT},
};

static void expect_bad(const struct bad_segment *bad)
{
    uint32_t *task;

    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, bad->access, FLAT_32);
    task[bad->word] = bad->selector;
    expect_caught(bad->what, try_task(call_task, TASK_A), bad->vector, bad->selector & 0xFFFC, TASK_A);
    expect("turns", 0, task_turns);
}

static void check_segments(word unused)
{
    (void)unused;
    for (unsigned i = 0; i < sizeof bad_segments / sizeof *bad_segments; i++)
        expect_bad(&bad_segments[i]);
}

static void check_absent_stack(word unused)
{
    static const struct bad_segment absent = {"absent SS", TASK_SS, SPARE_SEGMENT, DATA & ~ABSENT, VECTOR_STACK};

    (void)unused;
    expect_bad(&absent);
}

static void check_conforming(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, landing_task, 0);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, CONFORMING, FLAT_32);
    task[TASK_CS] = SPARE_SEGMENT | 3;
    task[TASK_SS] = SPARE_SEGMENT;
    expect_caught("SS of the wrong ring for a conforming CS with RPL 3", try_task(call_task, TASK_A), VECTOR_INVALID_TSS,
                  SPARE_SEGMENT, TASK_A);
    task[TASK_SS] = task[TASK_DS] = task[TASK_ES] = task[TASK_FS] = task[TASK_GS] = USER_DATA;
    set_access(TASK_A, TASK_AVAILABLE);
    expect_caught("fetch from the kernel in ring 3", try_task(call_task, TASK_A), VECTOR_PAGE_FAULT,
                  ERROR_PRESENT | ERROR_USER | (has_nx() ? ERROR_FETCH : 0), TASK_A);
}

static void check_ip(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFF, CODE, 4);
    task[TASK_CS] = SPARE_SEGMENT;
    expect_caught("EIP beyond CS", try_task(call_task, TASK_A), VECTOR_PROTECTION, 0, TASK_A);
}

/* The faulting task goes on with its first instruction, not with the CALL of another. */
static void check_interrupted_ip(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    task[TASK_FS] = BEYOND_TABLE;
    expect_caught("bad FS", try_task(call_task, TASK_A), VECTOR_INVALID_TSS, BEYOND_TABLE, TASK_A);
    expect("its EIP", (word)counting_task, task[TASK_EIP]);
    expect("what the caller goes on with", after_call_task(), task_state[TASK_EIP]);
}

/* ---- pages ---- */

static word missing_page;
static unsigned repairs;

static bool hook_repair(struct frame *frame)
{
    if (frame->vector != VECTOR_PAGE_FAULT)
        return false;
    expect("address within the page", missing_page, read_cr2() & ~(word)(PAGE_BYTES - 1));
    *leaf(missing_page) |= PRESENT | WRITABLE;
    invlpg(missing_page);
    repairs++;
    return true;
}

/* Takes rights from a page for one CALL, which must fault, leave no trace and run again. */
static void without(word page, entry_t rights)
{
    missing_page = page & ~(word)(PAGE_BYTES - 1);
    *leaf(missing_page) &= ~rights;
    invlpg(missing_page);
    trap_hook = hook_repair;
    repairs = 0;
}

static uint32_t *far_task(word va)
{
    uint32_t *task = (uint32_t *)va;

    memcpy(task, task_new(TASK_A, counting_task, 0), TASK_BYTES);
    task_gdt[TASK_A / 8] = descriptor((uint32_t)va, TASK_BYTES - 1, TASK_AVAILABLE, 0);
    return task;
}

static void check_missing_segment(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    set_gate(VECTOR_PAGE_FAULT, stub_of(VECTOR_PAGE_FAULT), 0);
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    task = far_task(TEST_VA + PAGE_BYTES - 52);
    for (unsigned turn = 1; turn <= 3; turn++) {
        without(TEST_VA + (turn == 2 ? PAGE_BYTES : 0), turn == 3 ? WRITABLE : PRESENT);
        call_task(TASK_A);
        expect("faults", 1, repairs);
        expect("turns", turn, task_turns);
        expect("back link", TASK_STATE, task[TASK_LINK]);
    }
}

/* The segment in use lies across two pages. */
static void check_missing_old_segment(word unused)
{
    uint32_t *own = (uint32_t *)(TEST_VA + PAGE_BYTES - 52);

    (void)unused;
    tasks_reset();
    set_gate(VECTOR_PAGE_FAULT, stub_of(VECTOR_PAGE_FAULT), 0);
    map_new(TEST_VA, WRITABLE);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    task_new(TASK_A, counting_task, 0);
    memcpy(own, task_state, TASK_BYTES);
    task_gdt[TASK_B / 8] = descriptor((uint32_t)own, TASK_BYTES - 1, TASK_AVAILABLE, 0);
    __asm__ volatile("ltr %w0" : : "r"(TASK_B));
    for (unsigned turn = 1; turn <= 4; turn++) {
        without(TEST_VA + (turn & 1 ? PAGE_BYTES : 0), turn > 2 ? WRITABLE : PRESENT);
        call_task(TASK_A);
        expect("faults", 1, repairs);
        expect("turns", turn, task_turns);
        expect("saved EIP", after_call_task(), own[TASK_EIP]);
    }
}

static void check_missing_descriptor(word unused)
{
    static uint64_t table[2 * PAGE_BYTES / 8] __attribute__((aligned(PAGE_BYTES)));

    (void)unused;
    tasks_reset();
    set_gate(VECTOR_PAGE_FAULT, stub_of(VECTOR_PAGE_FAULT), 0);
    map(space, TEST_VA, (word)table, WRITABLE);
    map(space, TEST_VA + PAGE_BYTES, (word)table + PAGE_BYTES, WRITABLE);
    task_new(TASK_A, counting_task, 0);
    memcpy(table, task_gdt, sizeof task_gdt);
    table[PAGE_BYTES / 8] = task_gdt[TASK_A / 8];
    load_gdt((void *)TEST_VA, sizeof table);
    for (unsigned turn = 1; turn <= 2; turn++) {
        without(TEST_VA + PAGE_BYTES, turn == 1 ? PRESENT : WRITABLE);
        call_task(PAGE_BYTES);
        expect("faults", 1, repairs);
        expect("turns", turn, task_turns);
        expect("busy bit after the return", TASK_AVAILABLE, table[PAGE_BYTES / 8] >> 40 & 0xFF);
    }
}

/* The new task's tables lack the page of a descriptor: the fault is the new task's, in its own space. */
static void check_other_space(word unused)
{
    entry_t *other = space_new();
    uint64_t *table;
    uint32_t *task;

    (void)unused;
    tasks_reset();
    map_new(TEST_VA, WRITABLE);
    table = (uint64_t *)TEST_VA;
    table[1] = descriptor(0, 0xFFFFF, DATA, FLAT_32);
    task_gdt[LOCAL_TABLE / 8] = descriptor((uint32_t)table, 15, LDT_PRESENT, 0);
    task = task_new(TASK_A, counting_task, 0);
    task[TASK_LDT] = LOCAL_TABLE;
    task[TASK_DS] = 8 | LOCAL;
    expect_not_caught("with the page", try_task(call_task, TASK_A));
    task[TASK_CR3] = (uint32_t)other;
    expect_caught("without", try_task(call_task, TASK_A), VECTOR_PAGE_FAULT, 0, TASK_A);
    expect("address", TEST_VA + 8, read_cr2());
}

static void read_away(word va)
{
    __asm__ volatile("movl (%0), %%eax" : : "r"(va) : "eax");
}

/* No page for the error code: a fault of the handler's task, and a double fault as for any handler. */
static void check_error_code_without_stack(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, popping_task, 0);
    task[TASK_ESP] = TEST_VA + PAGE_BYTES;
    set_task_gate(VECTOR_PAGE_FAULT, TASK_A, 0);
    expect_caught("page fault", try_task(read_away, TEST_VA + 2 * PAGE_BYTES), VECTOR_DOUBLE_FAULT, 0, TASK_A);
    expect("address", TEST_VA + PAGE_BYTES - 4, read_cr2());
    expect("EIP of the handler's task", (word)popping_task, task[TASK_EIP]);
}

static const struct test_case cases[] = {
    {"taskfaults.descriptor", check_descriptor, 0},
    {"taskfaults.limit", check_limit, 0},
    {"taskfaults.old-limit", check_old_limit, 0},
    {"taskfaults.local-descriptor", check_local_descriptor, 0},
    {"taskfaults.gate-target", check_gate_target, 0},
    {"taskfaults.external", check_external, 0},
    {"taskfaults.link", check_link, 0},
    {"taskfaults.segments", check_segments, 0},
    {"taskfaults.absent-stack", check_absent_stack, 0},
    {"taskfaults.conforming", check_conforming, 0},
    {"taskfaults.ip", check_ip, 0},
    {"taskfaults.interrupted-ip", check_interrupted_ip, 0},
    {"taskfaults.missing-segment", check_missing_segment, 0},
    {"taskfaults.missing-old-segment", check_missing_old_segment, 0},
    {"taskfaults.missing-descriptor", check_missing_descriptor, 0},
    {"taskfaults.other-space", check_other_space, 0},
    {"taskfaults.error-code-without-stack", check_error_code_without_stack, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
