/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Task switches by the CPU: CALL, JMP and IRET, events through task gates, 16-bit and virtual-8086 tasks. */
#include "../lib/platform.h"
#include "../lib/ports.h"
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/tasks.h"
#include "lib/traps.h"

enum { VECTOR_DEBUG = 1, LOW_CODE = 0x9000, VIRTUAL_CODE = 0x20000, VIRTUAL_END = 0x40000 };
enum { DR6_TASK = 1 << 15, DR7_LOCAL_0 = 1 << 0, DR7_GLOBAL_1 = 1 << 3, DR7_FIXED = 1 << 10, IRQ_BASE = 0x40 };

static void check_call(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    for (unsigned turn = 1; turn <= 3; turn++) {
        call_task(TASK_A);
        expect("turns", turn, task_turns);
    }
    expect("back link", TASK_STATE, task[TASK_LINK]);
    expect("busy bit after the return", TASK_AVAILABLE, access_of(TASK_A));
    expect("own busy bit", TASK_BUSY, access_of(TASK_STATE));
}

static void check_jump(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, jumping_task, 0);
    jump_task(TASK_A);
    jump_task(TASK_A);
    expect("turns", 2, task_turns);
    expect("back link", 0, task[TASK_LINK]);
    expect("NT in the saved flags", 0, task[TASK_EFLAGS] & FLAG_NESTED);
    expect("busy bit after the return", TASK_AVAILABLE, access_of(TASK_A));
    expect("own busy bit", TASK_BUSY, access_of(TASK_STATE));
}

static uint32_t *outer, *inner;
static unsigned busy_inside[3];

/* In TASK_A, whose stack C may use. */
static void calling_task(void)
{
    call_task(TASK_B);
    busy_inside[0] = access_of(TASK_STATE);
    busy_inside[1] = access_of(TASK_A);
    busy_inside[2] = access_of(TASK_B);
    __asm__ volatile("iretl");
}

static void check_nested(word unused)
{
    (void)unused;
    tasks_reset();
    outer = task_new(TASK_A, calling_task, 0);
    inner = task_new(TASK_B, counting_task, 0);
    call_task(TASK_A);
    expect("turns of the inner task", 1, task_turns);
    expect("link of the outer task", TASK_STATE, outer[TASK_LINK]);
    expect("link of the inner task", TASK_A, inner[TASK_LINK]);
    expect("the first task, inside", TASK_BUSY, busy_inside[0]);
    expect("the outer task, inside", TASK_BUSY, busy_inside[1]);
    expect("the inner task, after it returned", TASK_AVAILABLE, busy_inside[2]);
    expect("NT in the saved flags of a task that returned", 0, outer[TASK_EFLAGS] & FLAG_NESTED);
}

static void check_registers(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, recording_task, 0);
    for (unsigned i = 0; i < 8; i++)
        if (TASK_EAX + i != TASK_ESP)
            task[TASK_EAX + i] = 0x11111111 * (i + 1);
    task[TASK_EFLAGS] = FLAG_FIXED | FLAG_CARRY | FLAG_DIRECTION | FLAG_AC;
    call_task(TASK_A);
    for (unsigned i = 0; i < 8; i++)
        if (TASK_EAX + i != TASK_ESP)
            expect("a general register", 0x11111111 * (i + 1), task_entry[1 + i]);
    expect("flags", FLAG_FIXED | FLAG_CARRY | FLAG_DIRECTION | FLAG_AC | FLAG_NESTED, task_entry[0] & ~(uint32_t)FLAG_RESUME);
    expect("CS", KERNEL_CODE, task_entry[10]);
    for (unsigned i = 9; i <= 14; i++)
        expect("a selector", i == 10 ? KERNEL_CODE : KERNEL_DATA, task_entry[i]);
    expect("EIP of the caller", after_call_task(), task_state[TASK_EIP]);
    expect("CS of the caller", KERNEL_CODE, task_state[TASK_CS]);
    expect("SS of the caller", KERNEL_DATA, task_state[TASK_SS]);
    expect("NT in the flags of the caller", 0, task_state[TASK_EFLAGS] & FLAG_NESTED);
    expect("CR0.TS", CR0_TS, read_cr0() & CR0_TS);
}

static void check_own_space(word unused)
{
    entry_t *other = space_new();
    word frame = frame_new();
    uint32_t *task;

    (void)unused;
    tasks_reset();
    *at(map_new(TEST_VA, WRITABLE)) = 1;
    *at(frame) = 2;
    map(other, TEST_VA, frame, 0);
    task = task_new(TASK_A, reading_task, TEST_VA);
    task[TASK_CR3] = (uint32_t)other;
    call_task(TASK_A);
    expect("word that the task read", 2, task_seen);
    expect("CR3 after the return", (word)space, read_cr3());
    expect("word here", 1, *at(TEST_VA));
}

static void call_directly(word unused)
{
    (void)unused;
    __asm__ volatile("lcall %0, $0" : : "i"(TASK_A) : "memory");
}

static void call_by_16_bits(word unused)
{
    static const uint16_t pointer[2] = {0, TASK_A};

    (void)unused;
    __asm__ volatile("data16 lcall *%0" : : "m"(pointer) : "memory");
}

static void check_forms(word unused)
{
    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    expect_not_caught("direct", try_task(call_directly, 0));
    expect_not_caught("by a pointer with 16-bit offset", try_task(call_by_16_bits, 0));
    task_gdt[GATE / 8] = task_gate(TASK_A, 0);
    expect_not_caught("by a task gate", try_task(call_task, GATE));
    expect("turns", 3, task_turns);
    expect_caught("gate with RPL 3", try_task(call_task, GATE | 3), VECTOR_PROTECTION, GATE, TASK_STATE);
    expect_caught("task with RPL 3", try_task(call_task, TASK_A | 3), VECTOR_PROTECTION, TASK_A, TASK_STATE);
    set_access(GATE, TASK_GATE & 0x7F);
    expect_caught("absent gate", try_task(call_task, GATE), VECTOR_NOT_PRESENT, GATE, TASK_STATE);
}

/* ---- events ---- */

static void breakpoint(word unused)
{
    (void)unused;
    __asm__ volatile("int3");
}

static void check_interrupt_gates(word unused)
{
    static const uint8_t user_code[] = {0xCC, 0xCD, USER_RETURN_VECTOR}; /* INT3, and back */

    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    set_task_gate(VECTOR_BREAKPOINT, TASK_A, 0);
    expect_not_caught("INT3", try_task(breakpoint, 0));
    expect("turns", 1, task_turns);
    memcpy((void *)map_new(TEST_VA, USER), user_code, sizeof user_code);
    set_gate(VECTOR_PROTECTION, stub_of(VECTOR_PROTECTION), 0);
    expect_trap("INT3 in ring 3, gate of ring 0", try_user(TEST_VA, 0), VECTOR_PROTECTION, VECTOR_BREAKPOINT * 8 + 2);
    set_task_gate(VECTOR_BREAKPOINT, TASK_A, 3);
    expect_none("INT3 in ring 3, gate of ring 3", try_user(TEST_VA, 0));
    expect("turns", 2, task_turns);
    expect("CS of the interrupted code", USER_CODE32, task_state[TASK_CS]);
    expect("EIP of the interrupted code", TEST_VA + 1, task_state[TASK_EIP]);
}

static void undefined(word unused)
{
    (void)unused;
    __asm__ volatile("ud2");
}

/* The task of the handler steps over UD2 in the interrupted task's segment. */
static void stepping_task(void)
{
    for (;;) {
        task_seen = task_state[TASK_EFLAGS];
        task_state[TASK_EIP] += 2;
        task_turns++;
        __asm__ volatile("iretl" : : : "memory");
    }
}

static void check_exception(word unused)
{
    uint32_t *task;
    uint32_t stack;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, stepping_task, 0);
    stack = task[TASK_ESP];
    set_task_gate(VECTOR_INVALID_OPCODE, TASK_A, 0);
    expect_not_caught("UD2", try_task(undefined, 0));
    expect("turns", 1, task_turns);
    expect_true("a stack without an error code", task[TASK_ESP] <= stack && task[TASK_ESP] + 64 > stack);
}

static void check_resume_flag(word unused)
{
    (void)unused;
    tasks_reset();
    task_new(TASK_A, stepping_task, 0);
    set_task_gate(VECTOR_INVALID_OPCODE, TASK_A, 0);
    expect_not_caught("UD2", try_task(undefined, 0));
    expect("RF in the saved flags", FLAG_RESUME, task_seen & FLAG_RESUME);
}

static void read_away(word va)
{
    __asm__ volatile("movl (%0), %%eax" : : "r"(va) : "eax");
}

static void check_error_code(word unused)
{
    uint32_t *task;
    uint32_t stack;

    (void)unused;
    tasks_reset();
    expect_caught("read of an absent page", try_task(read_away, TEST_VA), VECTOR_PAGE_FAULT, 0, TASK_STATE);
    expect("CR2", TEST_VA, read_cr2());
    task = task_new(TASK_A, landing_task, 0);
    stack = task[TASK_ESP];
    set_task_gate(VECTOR_PAGE_FAULT, TASK_A, 0);
    try_task(read_away, TEST_VA);
    expect("error code on the task's stack", 0, *at(stack - 4));
}

static void lose_stack(word stack)
{
    __asm__ volatile("movl %0, %%esp; int3" : : "r"(stack));
}

static void check_double_fault(word unused)
{
    (void)unused;
    tasks_reset();
    set_gate(VECTOR_PAGE_FAULT, stub_of(VECTOR_PAGE_FAULT), 0);
    expect_caught("an absent stack", try_task(lose_stack, TEST_VA + PAGE_BYTES), VECTOR_DOUBLE_FAULT, 0, TASK_STATE);
    expect("ESP of the task that lost its stack", TEST_VA + PAGE_BYTES, task_state[TASK_ESP]);
}

static volatile int depth_wanted = 1 << 30;

static int recurse(int depth)
{
    volatile int frame[64];

    frame[depth & 63] = depth;
    return depth == depth_wanted ? 0 : recurse(depth + 1) + frame[0];
}

static void overflow(word stack)
{
    __asm__ volatile("movl %0, %%esp; pushl $0; call *%1" : : "r"(stack), "r"(recurse));
}

/* What teaching kernels do: a page without a mapping below the stack, and a task for what comes of it. */
static void check_stack_overflow(word unused)
{
    struct caught caught;

    (void)unused;
    tasks_reset();
    set_gate(VECTOR_PAGE_FAULT, stub_of(VECTOR_PAGE_FAULT), 0);
    map_new(TEST_VA + PAGE_BYTES, WRITABLE);
    map_new(TEST_VA + 2 * PAGE_BYTES, WRITABLE);
    caught = try_task(overflow, TEST_VA + 3 * PAGE_BYTES);
    expect_caught("recursion", caught, VECTOR_DOUBLE_FAULT, 0, TASK_STATE);
    expect_true("CR2 in the guard page", read_cr2() >= TEST_VA && read_cr2() < TEST_VA + PAGE_BYTES);
    expect_true("ESP at the guard page", task_state[TASK_ESP] - TEST_VA < PAGE_BYTES + 512);
}

static void init_pic(uint8_t command, uint16_t command_port, uint16_t data_port, uint8_t cascade)
{
    outb(command_port, command);
    outb(data_port, IRQ_BASE);
    outb(data_port, cascade);
    outb(data_port, 1);
}

static void wait_for_timer(word unused)
{
    (void)unused;
    outb(PIT_COMMAND_PORT, 0x30); /* channel 0, once */
    outb(PIT_CHANNEL0_PORT, 100);
    outb(PIT_CHANNEL0_PORT, 0);
    outb(PIC_MASTER_DATA_PORT, 0xFE);
    __asm__ volatile("sti; hlt; cli");
    outb(PIC_MASTER_DATA_PORT, 0xFF);
}

static void timer_task(void)
{
    for (;;) {
        outb(PIC_MASTER_COMMAND_PORT, 0x20); /* end of interrupt */
        task_turns++;
        __asm__ volatile("iretl" : : : "memory");
    }
}

static void check_hardware(word unused)
{
    (void)unused;
    tasks_reset();
    task_new(TASK_A, timer_task, 0);
    set_task_gate(IRQ_BASE, TASK_A, 0);
    init_pic(0x11, PIC_MASTER_COMMAND_PORT, PIC_MASTER_DATA_PORT, 1 << PIC_CASCADE_IRQ);
    outb(PIC_MASTER_DATA_PORT, 0xFF);
    for (unsigned turn = 1; turn <= 2; turn++) {
        expect_not_caught("timer", try_task(wait_for_timer, 0));
        expect("turns", turn, task_turns);
    }
    expect("IF in the saved flags", FLAG_INTERRUPT, task_state[TASK_EFLAGS] & FLAG_INTERRUPT);
}

/* ---- what else a switch loads ---- */

static void check_local_table(word unused)
{
    uint64_t *table = (uint64_t *)frame_new();
    uint32_t *task;

    (void)unused;
    tasks_reset();
    map_new(TEST_VA, WRITABLE);
    *at(TEST_VA + 8) = 0x1234;
    table[1] = descriptor(TEST_VA, PAGE_BYTES - 1, 0x92, 4);
    task_gdt[LOCAL_TABLE / 8] = descriptor((uint32_t)table, 15, LDT_PRESENT, 0);
    task = task_new(TASK_A, reading_task, 8);
    task[TASK_LDT] = LOCAL_TABLE;
    task[TASK_DS] = 8 | 4;
    task[TASK_EIP] = LOW_CODE;
    memcpy((void *)LOW_CODE, "\x8B\x07\x36\xA3", 4); /* mov eax, [edi]; mov ss:[...], eax; iret */
    *(uint32_t *)(LOW_CODE + 4) = (uint32_t)&task_seen;
    *(uint8_t *)(LOW_CODE + 8) = 0xCF;
    expect_not_caught("task with a table of its own", try_task(call_task, TASK_A));
    expect("word that it read", 0x1234, task_seen);
}

static void check_accessed_bits(word unused)
{
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, 0x9A, 0xC);
    task_gdt[OTHER_SEGMENT / 8] = descriptor(0, 0xFFFFF, 0x92, 0xC);
    task[TASK_CS] = SPARE_SEGMENT;
    task[TASK_SS] = task[TASK_FS] = OTHER_SEGMENT;
    expect_not_caught("CALL", try_task(call_task, TASK_A));
    expect("of the code segment", 0x9B, access_of(SPARE_SEGMENT));
    expect("of the data segment", 0x93, access_of(OTHER_SEGMENT));
}

enum { TASK16_IP = 7, TASK16_FLAGS, TASK16_AX, TASK16_SP = 13, TASK16_DI = 16, TASK16_ES, TASK16_CS, TASK16_SS, TASK16_DS };

/* 32-bit code in the first 64 KiB: call *recorder; iret. A 16-bit segment can save and load its place. */
static uint16_t *task_16(void)
{
    uint16_t *task = (uint16_t *)frame_new();

    memcpy((void *)LOW_CODE, "\xB8\0\0\0\0\xFF\xE0", 7); /* mov eax, recording_task; jmp eax */
    *(uint32_t *)(LOW_CODE + 1) = (uint32_t)recording_task;
    task[TASK16_IP] = LOW_CODE;
    task[TASK16_FLAGS] = FLAG_FIXED | FLAG_CARRY;
    for (unsigned i = 0; i < 8; i++)
        task[TASK16_AX + i] = (uint16_t)(0x1111 * (i + 1));
    task[TASK16_ES] = task[TASK16_SS] = task[TASK16_DS] = KERNEL_DATA;
    task[TASK16_SS] = SPARE_SEGMENT;
    task[TASK16_CS] = KERNEL_CODE;
    task_gdt[SPARE_SEGMENT / 8] = descriptor(0, 0xFFFFF, 0x93, 8); /* a stack of 16-bit offsets */
    task_gdt[TASK_B / 8] = descriptor((uint32_t)task, 43, 0x81, 0);
    return task;
}

static void check_16_bits(word unused)
{
    uint16_t *task;

    (void)unused;
    tasks_reset();
    task = task_16();
    task[TASK16_SP] = 0x8800;
    expect_not_caught("16-bit task", try_task(call_task, TASK_B));
    for (unsigned i = 1; i < 8; i++)
        if (i != 4)
            expect("a general register", 0x1111 * (i + 1), task_entry[1 + i] & 0xFFFF);
    expect("SP", 0x8800, task_entry[5] & 0xFFFF);
    expect("FS", 0, task_entry[13]);
    expect("GS", 0, task_entry[14]);
    expect("flags", FLAG_FIXED | FLAG_CARRY | FLAG_NESTED, task_entry[0] & ~(uint32_t)FLAG_RESUME);
    expect("back link", TASK_STATE, task[TASK_LINK]);
    expect("busy bit after the return", 0x81, access_of(TASK_B));
}

/* What a 16-bit segment saves of a task, though a 32-bit one comes next. */
static void check_16_bits_saved(word unused)
{
    uint16_t *task;

    (void)unused;
    tasks_reset();
    task = task_16();
    task[TASK16_SP] = 0x8800;
    expect_not_caught("16-bit task", try_task(call_task, TASK_B));
    expect("BX", 0x4444, task[TASK16_AX + 3]);
    expect("DI", 0x8888, task[TASK16_DI]);
    expect("SP", 0x8800, task[TASK16_SP]);
    expect("ES", KERNEL_DATA, task[TASK16_ES]);
    expect("CS", KERNEL_CODE, task[TASK16_CS]);
    expect("SS", SPARE_SEGMENT, task[TASK16_SS]);
    expect("DS", KERNEL_DATA, task[TASK16_DS]);
    expect("CF", FLAG_CARRY, task[TASK16_FLAGS] & FLAG_CARRY);
    for (unsigned i = 22; i < 40; i++)
        expect("what lies behind", 0, task[i]);
}

/* Small pages below the kernel, of which those for virtual-8086 code are ring 3's. */
static uint32_t *virtual_task(const void *code, size_t bytes)
{
    entry_t *table = (entry_t *)frame_new();
    uint32_t *task;

    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        word pa = i * PAGE_BYTES;

        table[i] = pa | PRESENT | WRITABLE | (pa >= VIRTUAL_CODE && pa < VIRTUAL_END ? USER : 0);
    }
    *entry_at(space, 0, 2) = (word)table | PRESENT | WRITABLE | USER;
    reload_cr3();
    memcpy((void *)VIRTUAL_CODE, code, bytes);
    task = task_new(TASK_A, counting_task, 0);
    task[TASK_EIP] = 0;
    task[TASK_EFLAGS] = FLAG_FIXED | FLAG_VM | FLAG_IOPL_3;
    task[TASK_ESP] = 0xFFF0;
    for (unsigned i = TASK_ES; i <= TASK_GS; i++)
        task[i] = VIRTUAL_CODE / 16;
    return task;
}

static void check_virtual(word unused)
{
    static const uint8_t code[] = {0xA1, 0x00, 0x01, 0xA3, 0x02, 0x01, 0xCC, 0xF4}; /* copy a word; INT3; HLT */
    uint32_t *task;

    (void)unused;
    tasks_reset();
    task = virtual_task(code, sizeof code);
    task_new(TASK_B, counting_task, 0);
    set_task_gate(VECTOR_BREAKPOINT, TASK_B, 3);
    *(uint16_t *)(VIRTUAL_CODE + 0x100) = 0x5678;
    expect_caught("HLT in the virtual-8086 task", try_task(call_task, TASK_A), VECTOR_PROTECTION, 0, TASK_A);
    expect("turns of the task that INT3 led to", 1, task_turns);
    expect("word that the code copied", 0x5678, *(uint16_t *)(VIRTUAL_CODE + 0x102));
    expect("EIP", 7, task[TASK_EIP]);
    expect("VM, IOPL and NT", FLAG_VM | FLAG_IOPL_3 | FLAG_NESTED, task[TASK_EFLAGS] & (FLAG_VM | FLAG_IOPL_3 | FLAG_NESTED));
    expect("CS", VIRTUAL_CODE / 16, task[TASK_CS]);
    expect("SS", VIRTUAL_CODE / 16, task[TASK_SS]);
}

static word read_dr6(void)
{
    word value;

    __asm__ volatile("mov %%dr6, %0" : "=r"(value));
    return value;
}

static void write_dr6(word value)
{
    __asm__ volatile("mov %0, %%dr6" : : "r"(value));
}

static void check_trap_bit(word unused)
{
    uint32_t *task;
    struct outcome outcome;

    (void)unused;
    tasks_reset();
    task = task_new(TASK_A, counting_task, 0);
    task[TASK_TRAP] = 1;
    write_dr6(0xFFFF0FF0);
    outcome = try(call_task, TASK_A);
    expect("vector", VECTOR_DEBUG, outcome.vector);
    expect("IP: the task's first instruction", (word)counting_task, outcome.ip);
    expect("turns", 0, task_turns);
    expect("DR6.BT", DR6_TASK, read_dr6() & DR6_TASK);
    write_dr6(0xFFFF0FF0);
}

static bool hook_count(struct frame *frame)
{
    if (frame->vector != VECTOR_DEBUG)
        return false;
    task_seen++;
    frame->flags |= FLAG_RESUME;
    return true;
}

static void check_debug_registers(word unused)
{
    word control;

    (void)unused;
    tasks_reset();
    task_new(TASK_A, counting_task, 0);
    __asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(counting_task), "r"(DR7_FIXED | DR7_LOCAL_0 | DR7_GLOBAL_1));
    trap_hook = hook_count;
    call_task(TASK_A);
    __asm__ volatile("mov %%dr7, %0; mov %1, %%dr7" : "=r"(control) : "r"(DR7_FIXED));
    expect("DR7: local breakpoints off, global ones kept", DR7_FIXED | DR7_GLOBAL_1, control);
    expect("turns", 1, task_turns);
    expect("traps", 0, task_seen);
}

static const struct test_case cases[] = {
    {"task.call", check_call, 0},
    {"task.jump", check_jump, 0},
    {"task.nested", check_nested, 0},
    {"task.registers", check_registers, 0},
    {"task.own-space", check_own_space, 0},
    {"task.forms", check_forms, 0},
    {"task.interrupt-gates", check_interrupt_gates, 0},
    {"task.exception", check_exception, 0},
    {"task.resume-flag", check_resume_flag, 0},
    {"task.error-code", check_error_code, 0},
    {"task.double-fault", check_double_fault, 0},
    {"task.stack-overflow", check_stack_overflow, 0},
    {"task.hardware-interrupt", check_hardware, 0},
    {"task.local-table", check_local_table, 0},
    {"task.accessed-bits", check_accessed_bits, 0},
    {"task.16-bits", check_16_bits, 0},
    {"task.16-bits-saved", check_16_bits_saved, 0},
    {"task.virtual-8086", check_virtual, 0},
    {"task.trap-bit", check_trap_bit, 0},
    {"task.debug-registers", check_debug_registers, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
