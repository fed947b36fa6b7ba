/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtual-8086 mode under paging: in, 16-bit code, and out again by INT, #GP and page faults. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { CODE = 0x20000, SEGMENT = CODE / 16, USER_END = 0x40000, IOPL_3 = 3 << 12 };

extern const uint8_t vm86_code[], vm86_code_end[];
extern const uint8_t vm86_int[], vm86_sum[], vm86_segment_store[], vm86_cli[], vm86_outside[];
extern word vm86_segment, vm86_ip, vm86_flags;
void enter_vm86(word unused);

/* Small pages below the kernel, of which those from CODE to USER_END are ring 3's. */
static void set_up(void)
{
    entry_t *table = (entry_t *)frame_new();

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        word pa = i * PAGE_BYTES;

        table[i] = pa | PRESENT | WRITABLE | (pa >= CODE && pa < USER_END ? USER : 0);
    }
    *entry_at(space, 0, 2) = (word)table | PRESENT | WRITABLE | USER;
    reload_cr3();
    memcpy((void *)CODE, vm86_code, (size_t)(vm86_code_end - vm86_code));
}

static struct outcome run(const uint8_t *entry, word flags)
{
    set_up();
    vm86_segment = SEGMENT;
    vm86_ip = (word)(entry - vm86_code);
    vm86_flags = flags;
    return try(enter_vm86, 0);
}

static word offset_of(const uint8_t *label)
{
    return (word)(label - vm86_code);
}

/* With IOPL 3, INT goes through the IDT; without it is #GP for a monitor to reflect. */
static void check_interrupt(word unused)
{
    struct outcome outcome = run(vm86_int, IOPL_3);

    (void)unused;
    expect_none("INT with IOPL 3", outcome);
    expect("CS", SEGMENT, outcome.cs);
    expect("IP", offset_of(vm86_int) + 2, outcome.ip);
    expect("VM in the flags", FLAG_VM, outcome.flags & FLAG_VM);
    expect("SP", 0xFFF0, outcome.frame.sp);
    expect("SS", SEGMENT, outcome.frame.ss);
    expect("DS in the handler, before it loads its own", 0, outcome.frame.ds);
}

static void check_interrupt_without_iopl(word unused)
{
    struct outcome outcome = run(vm86_int, 0);

    (void)unused;
    expect_trap("INT with IOPL 0", outcome, VECTOR_PROTECTION, 0);
    expect("IP at the INT", offset_of(vm86_int), outcome.ip);
}

static void check_sum(word unused)
{
    struct outcome outcome = run(vm86_sum, IOPL_3);

    (void)unused;
    expect_none("16-bit loop", outcome);
    expect("sum", 5050, outcome.value & 0xFFFF);
    expect("sum by the stack", 5050, outcome.frame.bx & 0xFFFF);
}

static void check_segments(word unused)
{
    (void)unused;
    *at(0x30010) = 0;
    expect_none("store", run(vm86_segment_store, IOPL_3));
    expect("word at 3000:0010", 0x55AA, *at(0x30010));
}

static void check_cli(word unused)
{
    (void)unused;
    expect_trap("CLI with IOPL 0", run(vm86_cli, 0), VECTOR_PROTECTION, 0);
    expect_none("CLI with IOPL 3", run(vm86_cli, IOPL_3));
}

static void check_page_fault(word unused)
{
    struct outcome outcome = run(vm86_outside, IOPL_3);

    (void)unused;
    expect_page_fault("read of a supervisor page", outcome, 0x50004, ERROR_PRESENT | ERROR_USER);
    expect("CS", SEGMENT, outcome.cs);
    expect("VM in the flags", FLAG_VM, outcome.flags & FLAG_VM);
}

/* The handler repairs the page, and virtual-8086 code goes on. */
static bool hook_repair(struct frame *frame)
{
    if (frame->vector != VECTOR_PAGE_FAULT)
        return false;
    *leaf(0x50000) |= USER;
    invlpg(0x50000);
    return true;
}

static void check_resumed(word unused)
{
    struct outcome outcome;

    (void)unused;
    *at(0x50004) = 0xABCD;
    trap_hook = hook_repair;
    outcome = run(vm86_outside, IOPL_3);
    expect_none("read of a repaired page", outcome);
    expect("what it read", 0xABCD, outcome.frame.bx & 0xFFFF);
}

static const struct test_case cases[] = {
    {"vm86.interrupt", check_interrupt, 0},
    {"vm86.interrupt-without-iopl", check_interrupt_without_iopl, 0},
    {"vm86.loop-and-stack", check_sum, 0},
    {"vm86.segments", check_segments, 0},
    {"vm86.cli", check_cli, 0},
    {"vm86.page-fault", check_page_fault, 0},
    {"vm86.page-fault-resumed", check_resumed, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
