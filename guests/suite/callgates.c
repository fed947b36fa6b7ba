/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far CALL and JMP through call gates, which emu carries out itself (Intel SDM volume 3, section 5.8). */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/tasks.h"
#include "lib/traps.h"

enum { GATE_32 = 0x8C, GATE_16 = 0x84, PRESENT_BIT = 0x80, RING_3 = 0x60, CODE = 0x9A, CONFORMING = 0x9E, DATA = 0x92, FLAT_32 = 0xC };
enum { LOW_CODE = 0x9000 };

extern volatile uint32_t gate_items[8], gate_stack[2];
void gate_entry(void);
void gate_entry_16(void);
void inner_entry(void);
void jump_entry(void);
void call_gate(word selector);
word after_call_gate(void);
void jump_gate(word selector);

static uint64_t gate_to(unsigned selector, word entry, unsigned access, unsigned parameters)
{
    return (entry & 0xFFFF) | (uint64_t)selector << 16 | (uint64_t)parameters << 32 | (uint64_t)access << 40 |
           (uint64_t)(entry >> 16) << 48;
}

static void set_call_gate(unsigned selector, void (*entry)(void), unsigned access, unsigned parameters)
{
    task_gdt[GATE / 8] = gate_to(selector, (word)entry, access, parameters);
}

static word sp_now(void)
{
    word value;

    __asm__ volatile("movl %%esp, %0" : "=r"(value));
    return value;
}

static void check_same_level(word unused)
{
    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, gate_entry, GATE_32, 0);
    expect_not_caught("CALL", try_task(call_gate, GATE));
    expect("return address", after_call_gate(), gate_items[0]);
    expect("CS", KERNEL_CODE, gate_items[1]);
    expect_true("the same stack", gate_stack[0] < sp_now() && gate_stack[0] + 4096 > sp_now());
}

static void check_16_bits(word unused)
{
    (void)unused;
    tasks_reset();
    memcpy((void *)LOW_CODE, (const void *)gate_entry_16, 64);
    task_gdt[GATE / 8] = gate_to(KERNEL_CODE, LOW_CODE, GATE_16, 0);
    memcpy((void *)(LOW_CODE + 256), "\x9A\0\0\0\0\x90\0\xC3", 8); /* lcall GATE:0; ret, where 16 bits of EIP suffice */
    expect_not_caught("CALL", try_task((void (*)(word))(LOW_CODE + 256), 0));
    expect("IP and CS, two bytes each", (LOW_CODE + 256 + 7) | KERNEL_CODE << 16, gate_items[0]);
}

/* push 2; push 1; lcall GATE|3:0; int back */
static const uint8_t user_code[] = {0x6A, 2, 0x6A, 1, 0x9A, 0, 0, 0, 0, GATE | 3, 0, 0xCD, USER_RETURN_VECTOR};

static struct outcome call_from_user(void)
{
    word frame = map_new(TEST_VA, USER);

    set_gate(VECTOR_PROTECTION, stub_of(VECTOR_PROTECTION), 0);
    set_gate(VECTOR_INVALID_TSS, stub_of(VECTOR_INVALID_TSS), 0);
    set_gate(VECTOR_STACK, stub_of(VECTOR_STACK), 0);
    set_gate(VECTOR_NOT_PRESENT, stub_of(VECTOR_NOT_PRESENT), 0);
    set_gate(VECTOR_PAGE_FAULT, stub_of(VECTOR_PAGE_FAULT), 0);
    memcpy((void *)frame, user_code, sizeof user_code);
    return try_user(TEST_VA, 0);
}

static void check_inner_level(word unused)
{
    struct outcome outcome;

    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, inner_entry, GATE_32 | RING_3, 2);
    outcome = call_from_user();
    expect_none("CALL", outcome);
    expect("return address", TEST_VA + 11, gate_items[0]);
    expect("CS", USER_CODE32, gate_items[1]);
    expect("first parameter", 1, gate_items[2]);
    expect("second parameter", 2, gate_items[3]);
    expect("ESP", USER_STACK_VA + PAGE_BYTES - 8, gate_items[4]);
    expect("SS", USER_DATA, gate_items[5]);
    expect("stack of ring 0", default_trap_stack() - 24, gate_stack[0]);
    expect("its SS", KERNEL_DATA, gate_stack[1]);
    expect("ESP after the return", USER_STACK_VA + PAGE_BYTES, outcome.frame.sp);
}

static void check_conforming(word unused)
{
    (void)unused;
    tasks_reset();
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, CONFORMING, FLAT_32);
    set_call_gate(SPARE_SEGMENT, gate_entry, GATE_32 | RING_3, 0);
    expect_trap("fetch from the kernel in ring 3", call_from_user(), VECTOR_PAGE_FAULT,
                ERROR_PRESENT | ERROR_USER | (has_nx() ? ERROR_FETCH : 0));
}

static void check_jump(word unused)
{
    (void)unused;
    tasks_reset();
    gate_items[0] = gate_items[1] = 0;
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, CODE, FLAT_32);
    set_call_gate(SPARE_SEGMENT, jump_entry, GATE_32, 0);
    expect_not_caught("JMP", try_task(jump_gate, GATE));
    expect("it came there", 1, gate_items[0]);
    expect("CS", SPARE_SEGMENT, gate_items[1]);
}

static void check_refusals(word unused)
{
    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, gate_entry, GATE_32, 0);
    expect_caught("gate with RPL 3", try_task(call_gate, GATE | 3), VECTOR_PROTECTION, GATE, TASK_STATE);
    set_access(GATE, GATE_32 & ~PRESENT_BIT);
    expect_caught("absent gate", try_task(call_gate, GATE), VECTOR_NOT_PRESENT, GATE, TASK_STATE);
    set_call_gate(0, gate_entry, GATE_32, 0);
    expect_caught("null selector", try_task(call_gate, GATE), VECTOR_PROTECTION, 0, TASK_STATE);
    set_call_gate(KERNEL_DATA, gate_entry, GATE_32, 0);
    expect_caught("data segment", try_task(call_gate, GATE), VECTOR_PROTECTION, KERNEL_DATA, TASK_STATE);
    set_call_gate(USER_CODE32, gate_entry, GATE_32, 0);
    expect_caught("code of an outer ring", try_task(call_gate, GATE), VECTOR_PROTECTION, USER_CODE32 & ~3u, TASK_STATE);
    set_call_gate(BEYOND_TABLE, gate_entry, GATE_32, 0);
    expect_caught("beyond the table", try_task(call_gate, GATE), VECTOR_PROTECTION, BEYOND_TABLE, TASK_STATE);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, CODE & ~PRESENT_BIT, FLAT_32);
    set_call_gate(SPARE_SEGMENT, gate_entry, GATE_32, 0);
    expect_caught("absent code", try_task(call_gate, GATE), VECTOR_NOT_PRESENT, SPARE_SEGMENT, TASK_STATE);
}

static void check_target_limit(word unused)
{
    (void)unused;
    tasks_reset();
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFF, CODE, 4);
    set_call_gate(SPARE_SEGMENT, gate_entry, GATE_32, 0);
    expect_caught("CALL", try_task(call_gate, GATE), VECTOR_PROTECTION, 0, TASK_STATE);
    expect_caught("JMP", try_task(jump_gate, GATE), VECTOR_PROTECTION, 0, TASK_STATE);
}

static void check_jump_inwards(word unused)
{
    static const uint8_t jump[] = {0xEA, 0, 0, 0, 0, GATE | 3, 0};
    word frame;

    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, jump_entry, GATE_32 | RING_3, 0);
    frame = map_new(TEST_VA, USER);
    memcpy((void *)frame, jump, sizeof jump);
    set_gate(VECTOR_PROTECTION, stub_of(VECTOR_PROTECTION), 0);
    expect_trap("JMP from ring 3", try_user(TEST_VA, 0), VECTOR_PROTECTION, KERNEL_CODE);
}

void enter_user(word unused);
extern word user_entry, user_stack;

static struct caught call_with_stack(unsigned selector, uint32_t esp)
{
    struct caught caught;

    task_state[1] = esp;
    task_state[2] = selector;
    user_entry = TEST_VA;
    user_stack = USER_STACK_VA + PAGE_BYTES;
    caught = try_task(enter_user, 0);
    set_trap_stack(default_trap_stack());
    return caught;
}

/* The stack for ring 0 is wrong, which an interrupt would meet too: hence tasks for the faults. */
static void check_inner_stack(word unused)
{
    uint32_t esp = (uint32_t)default_trap_stack();

    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, inner_entry, GATE_32 | RING_3, 2);
    memcpy((void *)map_new(TEST_VA, USER), user_code, sizeof user_code);
    expect_caught("null SS", call_with_stack(0, esp), VECTOR_INVALID_TSS, 0, TASK_STATE);
    expect_caught("SS of ring 3", call_with_stack(USER_DATA, esp), VECTOR_INVALID_TSS, USER_DATA & ~3u, TASK_STATE);
    expect_caught("code in SS", call_with_stack(KERNEL_CODE, esp), VECTOR_INVALID_TSS, KERNEL_CODE, TASK_STATE);
    expect_caught("SS beyond the table", call_with_stack(BEYOND_TABLE, esp), VECTOR_INVALID_TSS, BEYOND_TABLE, TASK_STATE);
    expect_caught("no page", call_with_stack(KERNEL_DATA, TEST_VA + 4 * PAGE_BYTES), VECTOR_PAGE_FAULT, ERROR_WRITE, TASK_STATE);
    expect("address", TEST_VA + 4 * PAGE_BYTES - 4, read_cr2());
    expect("EIP", TEST_VA + 4, task_state[8]);
    expect("CS", USER_CODE32, task_state[19]);
}

static void check_absent_stack(word unused)
{
    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, inner_entry, GATE_32 | RING_3, 2);
    memcpy((void *)map_new(TEST_VA, USER), user_code, sizeof user_code);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, DATA & ~PRESENT_BIT, FLAT_32);
    expect_caught("absent SS", call_with_stack(SPARE_SEGMENT, (uint32_t)default_trap_stack()), VECTOR_STACK, SPARE_SEGMENT,
                  TASK_STATE);
}

static void check_stack_limit(word unused)
{
    (void)unused;
    tasks_reset();
    set_call_gate(KERNEL_CODE, inner_entry, GATE_32 | RING_3, 2);
    memcpy((void *)map_new(TEST_VA, USER), user_code, sizeof user_code);
    expect_caught("20 bytes for 24", call_with_stack(KERNEL_DATA, 20), VECTOR_STACK, KERNEL_DATA, TASK_STATE);
}

static const struct test_case cases[] = {
    {"callgates.same-level", check_same_level, 0},
    {"callgates.16-bits", check_16_bits, 0},
    {"callgates.inner-level", check_inner_level, 0},
    {"callgates.conforming", check_conforming, 0},
    {"callgates.jump", check_jump, 0},
    {"callgates.refusals", check_refusals, 0},
    {"callgates.target-limit", check_target_limit, 0},
    {"callgates.jump-inwards", check_jump_inwards, 0},
    {"callgates.inner-stack", check_inner_stack, 0},
    {"callgates.absent-stack", check_absent_stack, 0},
    {"callgates.stack-limit", check_stack_limit, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
