/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page faults that the CPU meets while it delivers an event or loads a segment: its own reads and pushes. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define STACK_VA (TEST_VA + (word)2 * LARGE_BYTES)
#define TABLES_VA (TEST_VA + (word)3 * LARGE_BYTES)

static void breakpoint(word unused)
{
    (void)unused;
    __asm__ volatile("int3");
}

static void load_fs(word selector)
{
    __asm__ volatile("mov %0, %%fs" : : "r"((uint32_t)selector));
}

static void check_breakpoint(word unused)
{
    struct outcome outcome = try(breakpoint, 0);

    (void)unused;
    expect("INT3", VECTOR_BREAKPOINT, outcome.vector);
    expect("CS", KERNEL_CODE, outcome.cs);
}

/* A GDT across two pages: the spare slots, from SPARE_VA on, are on the second, which is not there yet. */
#define SPARE_VA (TABLES_VA + PAGE_BYTES)

static void load_split_gdt(void)
{
    word frame = map_new(TABLES_VA, WRITABLE);

    memcpy((void *)(frame + PAGE_BYTES - SPARE_SELECTOR), gdt, SPARE_SELECTOR);
    load_gdt((void *)(SPARE_VA - SPARE_SELECTOR), SPARE_SELECTOR + 16);
}

static void map_spare_slots(uint64_t slot)
{
    word frame = map_new(SPARE_VA, WRITABLE);

    *(volatile uint64_t *)frame = slot;
}

/* The segment load faults as a read by the CPU itself. */
static void check_gdt_absent(word unused)
{
    (void)unused;
    load_split_gdt();
    expect_page_fault("segment load", try(load_fs, SPARE_SELECTOR), SPARE_VA, 0);
    map_spare_slots(gdt[USER_DATA / 8]);
    expect_none("segment load when the page is there", try(load_fs, SPARE_SELECTOR));
    expect("A of the descriptors' page", ACCESSED, *leaf(SPARE_VA) & ACCESSED);
}

/* From ring 3 too: no U in the error code, and supervisor pages do. */
static void check_gdt_from_ring3(word unused)
{
    static const uint8_t code[] = {0x8E, 0xE7, 0xCD, USER_RETURN_VECTOR}; /* MOV FS, EDI; INT */
    struct outcome outcome;

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    load_split_gdt();
    outcome = try_user(TEST_VA, SPARE_SELECTOR | 3);
    expect_page_fault("segment load", outcome, SPARE_VA, 0);
    expect("IP at the fault", TEST_VA, outcome.ip);
    map_spare_slots(gdt[USER_DATA / 8]);
    expect_none("segment load when the page is there", try_user(TEST_VA, SPARE_SELECTOR | 3));
}

/* Loading a segment sets the accessed bit of its descriptor: a write by the CPU. */
static void check_descriptor_accessed(word unused)
{
    (void)unused;
    load_split_gdt();
    map_spare_slots(gdt[USER_DATA / 8] & ~(1ull << 40));
    expect_none("segment load", try(load_fs, SPARE_SELECTOR));
    expect("accessed bit", 1, *at(SPARE_VA + 4) >> 8 & 1);
    expect("D of its page", DIRTY, *leaf(SPARE_VA) & DIRTY);
}

/* The same in a page that is read-only: the write faults under WP. */
static void check_descriptor_read_only(word unused)
{
    (void)unused;
    load_split_gdt();
    map_spare_slots(gdt[USER_DATA / 8] & ~(1ull << 40));
    *leaf(SPARE_VA) &= ~(entry_t)WRITABLE;
    invlpg(SPARE_VA);
    expect_trap("write of the accessed bit", try(load_fs, SPARE_SELECTOR), VECTOR_PAGE_FAULT, ERROR_PRESENT | ERROR_WRITE);
    expect("accessed bit", 0, *at(SPARE_VA + 4) >> 8 & 1);
}

/* The IDT across two pages: the gates of low vectors are there, the one of the event is not. */
enum { LATE_VECTOR = 0x90 };

static void late_interrupt(word unused)
{
    (void)unused;
    __asm__ volatile("int $0x90");
}

static void check_idt_absent(word unused)
{
    /* The table begins so that vectors below 0x80 end with the page. */
    word start = TABLES_VA + PAGE_BYTES - 0x80 * 8 * GATE_WORDS;
    word frame = map_new(TABLES_VA, 0);
    struct outcome outcome;

    (void)unused;
    memcpy((void *)(frame + PAGE_BYTES - 0x80 * 8 * GATE_WORDS), idt, 0x80 * 8 * GATE_WORDS);
    load_idt((void *)start, sizeof idt);
    outcome = try(late_interrupt, 0);
    load_idt(idt, sizeof idt);
    expect_page_fault("INT with its gate on an absent page", outcome, start + LATE_VECTOR * 8 * GATE_WORDS, 0);
}

static bool hook_map_idt(struct frame *frame)
{
    if (frame->vector != VECTOR_PAGE_FAULT)
        return false;
    memcpy((void *)map_new(TABLES_VA + PAGE_BYTES, 0), (char *)idt + 0x80 * 8 * GATE_WORDS, 0x80 * 8 * GATE_WORDS);
    return true;
}

static void check_idt_appears(word unused)
{
    word start = TABLES_VA + PAGE_BYTES - 0x80 * 8 * GATE_WORDS;
    word frame = map_new(TABLES_VA, 0);
    struct outcome outcome;

    (void)unused;
    memcpy((void *)(frame + PAGE_BYTES - 0x80 * 8 * GATE_WORDS), idt, 0x80 * 8 * GATE_WORDS);
    load_idt((void *)start, sizeof idt);
    trap_hook = hook_map_idt;
    outcome = try(late_interrupt, 0);
    load_idt(idt, sizeof idt);
    expect("INT whose gate appeared", LATE_VECTOR, outcome.vector);
}

/* The trap stack of ring 3 is in a page that is mapped late; the CPU's pushes set A and D. */
static void check_trap_stack_bits(word unused)
{
    (void)unused;
    map_new(STACK_VA, WRITABLE);
    set_trap_stack(STACK_VA + PAGE_BYTES);
    expect_none("ring 3 stay", try_user_read(USER_STACK_VA));
    set_trap_stack(default_trap_stack());
    expect("A and D of the stack's page", ACCESSED | DIRTY, *leaf(STACK_VA) & (ACCESSED | DIRTY));
}

/* A trap frame across two pages. */
static void check_trap_stack_across(word unused)
{
    (void)unused;
    map_new(STACK_VA, WRITABLE);
    map_new(STACK_VA + PAGE_BYTES, WRITABLE);
    set_trap_stack(STACK_VA + PAGE_BYTES + 16);
    expect_none("ring 3 stay", try_user_read(USER_STACK_VA));
    set_trap_stack(default_trap_stack());
    expect("D of the first page", DIRTY, *leaf(STACK_VA) & DIRTY);
    expect("D of the second page", DIRTY, *leaf(STACK_VA + PAGE_BYTES) & DIRTY);
}

/* The stack's page is the user's as well: the CPU pushes as a supervisor. */
static void check_trap_stack_user_page(word unused)
{
    word frame = map_new(STACK_VA, WRITABLE | USER);

    (void)unused;
    set_trap_stack(STACK_VA + PAGE_BYTES);
    expect_none("ring 3 stay", try_user_read(USER_STACK_VA));
    set_trap_stack(default_trap_stack());
    expect("SS pushed", USER_DATA, *at(frame + PAGE_BYTES - sizeof(word)));
}

/* The task state segment moves to a page of its own, whose contents count. */
static void check_task_state_page(word unused)
{
#if PAGING_LEVELS < 4
    uint32_t *moved;

    map_new(TABLES_VA, WRITABLE);
    moved = (uint32_t *)TABLES_VA;
    memcpy(moved, task_state, TASK_BYTES);
    map_new(STACK_VA, WRITABLE);
    moved[1] = STACK_VA + PAGE_BYTES;
    gdt[SPARE_SELECTOR / 8] = descriptor(TABLES_VA, TASK_BYTES - 1, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(SPARE_SELECTOR));
    expect_none("ring 3 stay", try_user_read(USER_STACK_VA));
    gdt[TASK_STATE / 8] = descriptor((uint32_t)task_state, TASK_BYTES - 1, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(TASK_STATE));
    expect("stack that the moved segment names", USER_DATA, *at(STACK_VA + PAGE_BYTES - 4));
#else
    require(false, "long mode's segment has a base of 64 bits; see longmode");
#endif
    (void)unused;
}

/* Faults in a fault's handler: each is delivered, none is lost. */
static unsigned depth;

static bool hook_nested(struct frame *frame)
{
    word va = read_cr2();

    if (frame->vector != VECTOR_PAGE_FAULT)
        return false;
    depth++;
    if (depth < 8)
        (void)*at(va + PAGE_BYTES);
    map_new(va & -(word)PAGE_BYTES, WRITABLE);
    return true;
}

static void check_nested_faults(word unused)
{
    (void)unused;
    depth = 0;
    trap_hook = hook_nested;
    *at(TEST_VA) = 1;
    expect("faults in one another", 8, depth);
    for (unsigned i = 0; i < 8; i++)
        expect_none("page made in a nested handler", try_read(TEST_VA + i * PAGE_BYTES));
}

/* CR2 stays as it was when something other than a page fault happens. */
static void check_cr2(word unused)
{
    (void)unused;
    expect_page_fault("read", try_read(TEST_VA + 0x44), TEST_VA + 0x44, 0);
    expect("breakpoint", VECTOR_BREAKPOINT, try(breakpoint, 0).vector);
    expect("CR2 after a breakpoint", TEST_VA + 0x44, read_cr2());
    write_cr2(0x1234);
    expect("CR2 as written", 0x1234, read_cr2());
}

static void divide(word by)
{
    word quotient = 1, rest = 0;

    __asm__ volatile("div %2" : "+a"(quotient), "+d"(rest) : "r"(by));
}

static void undefined(word unused)
{
    (void)unused;
    __asm__ volatile("ud2");
}

static void load_ds(word selector)
{
    __asm__ volatile("mov %0, %%ds" : : "r"((uint32_t)selector));
}

static void check_other_exceptions(word unused)
{
    (void)unused;
    expect_trap("division by zero", try(divide, 0), VECTOR_DIVIDE, 0);
    expect_trap("UD2", try(undefined, 0), VECTOR_INVALID_OPCODE, 0);
    expect_trap("selector beyond the table", try(load_ds, 0x1000), VECTOR_PROTECTION, 0x1000);
    gdt[SPARE_SELECTOR / 8] = descriptor(0, 0xFFFFF, 0x13, 0xC);
    expect_trap("segment not present", try(load_ds, SPARE_SELECTOR), VECTOR_NOT_PRESENT, SPARE_SELECTOR);
}

static void check_privileged(word unused)
{
    static const uint8_t halt[] = {0xF4}, load_root[] = {0x0F, 0x22, 0xDF}, invalidate[] = {0x0F, 0x01, 0x3F};
    static const struct {
        const char *name;
        const uint8_t *bytes;
        unsigned length;
    } instructions[] = {{"HLT", halt, 1}, {"MOV CR3", load_root, 3}, {"INVLPG", invalidate, 3}};
    word frame = map_new(TEST_VA, USER);

    (void)unused;
    for (unsigned i = 0; i < 3; i++) {
        memcpy((void *)frame, instructions[i].bytes, instructions[i].length);
        expect_trap(instructions[i].name, try_user(TEST_VA, TEST_VA), VECTOR_PROTECTION, 0);
    }
}

static const struct test_case cases[] = {
    {"events.breakpoint", check_breakpoint, 0},
    {"events.gdt-page-absent", check_gdt_absent, 0},
    {"events.gdt-page-absent-from-ring3", check_gdt_from_ring3, 0},
    {"events.descriptor-accessed-bit", check_descriptor_accessed, 0},
    {"events.descriptor-accessed-bit-read-only", check_descriptor_read_only, 0},
    {"events.idt-page-absent", check_idt_absent, 0},
    {"events.idt-page-appears", check_idt_appears, 0},
    {"events.trap-stack-bits", check_trap_stack_bits, 0},
    {"events.trap-stack-across-pages", check_trap_stack_across, 0},
    {"events.trap-stack-in-a-user-page", check_trap_stack_user_page, 0},
    {"events.task-state-moved", check_task_state_page, 0},
    {"events.nested-page-faults", check_nested_faults, 0},
    {"events.cr2-only-by-page-faults", check_cr2, 0},
    {"events.other-exceptions", check_other_exceptions, 0},
    {"events.privileged-from-ring3", check_privileged, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
