/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What only long mode has: SYSCALL, interrupt stacks, compatibility mode, segment bases, canonical addresses, CR8. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define COMPATIBLE_VA 0x50000000ull /* within reach of 32-bit code */
#define STACK_VA (TEST_VA + (word)2 * LARGE_BYTES)
#define NOT_CANONICAL 0x0000800000000000ull
#define HIGH_HALF 0xFFFF800000000000ull

extern word seen_rcx, seen_r11, seen_cs, seen_ss, seen_flags, seen_sp;
void syscall_entry(void);
void syscall_entry_compat(void);

static const uint8_t SYSCALL_CODE[] = {0x0F, 0x05, 0xCD, USER_RETURN_VECTOR};

static void set_up_syscall(void)
{
    require(has_extended(EXTENDED_SYSCALL), "the CPU has no SYSCALL");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)0x1B << 48 | (uint64_t)KERNEL_CODE << 32);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_CSTAR, (word)syscall_entry_compat);
    wrmsr(MSR_FMASK, FLAG_DIRECTION | FLAG_CARRY);
    memcpy((void *)map_new(TEST_VA, USER), SYSCALL_CODE, sizeof SYSCALL_CODE);
}

static void check_syscall(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up_syscall();
    outcome = try_user(TEST_VA, 0);
    expect_none("SYSCALL and SYSRET", outcome);
    expect("RCX", TEST_VA + 2, seen_rcx);
    expect("CS inside", KERNEL_CODE, seen_cs);
    expect("SS inside", KERNEL_DATA, seen_ss);
    expect("RSP inside, which stays ring 3's", USER_STACK_VA + PAGE_BYTES, seen_sp);
    expect("CS after", USER_CODE64, outcome.cs);
    expect("SS after", USER_DATA, outcome.frame.ss);
    expect("IP after", TEST_VA + 4, outcome.ip);
}

static void check_syscall_flags(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up_syscall();
    user_flags = FLAG_FIXED | FLAG_DIRECTION | FLAG_CARRY | FLAG_AC;
    outcome = try_user(TEST_VA, 0);
    expect("R11", user_flags, seen_r11);
    expect("flags inside", FLAG_FIXED | FLAG_AC, seen_flags);
    expect("flags after", user_flags, outcome.flags);
}

static void check_syscall_off(word unused)
{
    (void)unused;
    set_up_syscall();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_SCE);
    expect_trap("SYSCALL without EFER.SCE", try_user(TEST_VA, 0), VECTOR_INVALID_OPCODE, 0);
}

/* AMD: to CSTAR; Intel: #UD. Either is right. */
static void check_syscall_compatible(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up_syscall();
    memcpy((void *)map_new(COMPATIBLE_VA, USER), SYSCALL_CODE, sizeof SYSCALL_CODE);
    user_selector = USER_CODE32;
    outcome = try_user(COMPATIBLE_VA, 0);
    require(outcome.vector != VECTOR_INVALID_OPCODE, "the CPU has SYSCALL in 64-bit code only");
    expect_none("SYSCALL and SYSRET", outcome);
    expect("RCX", COMPATIBLE_VA + 2, seen_rcx);
    expect("CS after", USER_CODE32, outcome.cs);
}

/* A fault on the entry of SYSCALL is a supervisor's. */
static void check_syscall_entry_absent(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up_syscall();
    wrmsr(MSR_LSTAR, STACK_VA);
    outcome = try_user(TEST_VA, 0);
    expect_page_fault("fetch of an absent entry", outcome, STACK_VA, has_nx() ? ERROR_FETCH : 0);
    expect("CS", KERNEL_CODE, outcome.cs);
}

/* 48 90 is one NOP in 64-bit code, and DEC EAX; NOP in 32-bit code. */
static const uint8_t WIDTH_CODE[] = {0xB8, 5, 0, 0, 0, 0x48, 0x90, 0xCD, USER_RETURN_VECTOR};

static void check_compatibility(word unused)
{
    struct outcome outcome;

    (void)unused;
    memcpy((void *)map_new(COMPATIBLE_VA, USER), WIDTH_CODE, sizeof WIDTH_CODE);
    for (unsigned round = 0; round < 3; round++) {
        user_selector = USER_CODE64;
        outcome = try_user(COMPATIBLE_VA, 0);
        expect("EAX of 64-bit code", 5, outcome.value);
        user_selector = USER_CODE32;
        outcome = try_user(COMPATIBLE_VA, 0);
        expect("EAX of 32-bit code", 4, outcome.value);
        expect("CS", USER_CODE32, outcome.cs);
    }
}

static void check_compatibility_fault(word unused)
{
    static const uint8_t code[] = {0x89, 0x07, 0xCD, USER_RETURN_VECTOR}; /* MOV [EDI], EAX */
    struct outcome outcome;

    (void)unused;
    memcpy((void *)map_new(COMPATIBLE_VA, USER), code, sizeof code);
    user_selector = USER_CODE32;
    outcome = try_user(COMPATIBLE_VA, COMPATIBLE_VA + PAGE_BYTES);
    expect_page_fault("write", outcome, COMPATIBLE_VA + PAGE_BYTES, ERROR_WRITE | ERROR_USER);
    expect("IP", COMPATIBLE_VA, outcome.ip);
    /* Addresses wrap at 32 bits there: EDI's upper half counts for nothing. */
    map_new(COMPATIBLE_VA + PAGE_BYTES, WRITABLE | USER);
    expect_none("address with an upper half", try_user(COMPATIBLE_VA, (1ull << 40) + COMPATIBLE_VA + PAGE_BYTES));
}

static void set_interrupt_stack(unsigned number, word top)
{
    task_state[7 + 2 * number] = (uint32_t)top; /* IST1 is at byte 36 */
    task_state[8 + 2 * number] = (uint32_t)(top >> 32);
}

static void use_interrupt_stack(unsigned vector, unsigned number)
{
    idt[vector * GATE_WORDS] |= (uint64_t)number << 32;
}

static word frame_address;

static bool hook_note_frame(struct frame *frame)
{
    frame_address = (word)(frame + 1);
    return false;
}

static void breakpoint(word unused)
{
    (void)unused;
    __asm__ volatile("int3");
}

static void check_interrupt_stack(word unused)
{
    (void)unused;
    map_new(STACK_VA, WRITABLE);
    set_interrupt_stack(3, STACK_VA + PAGE_BYTES);
    use_interrupt_stack(VECTOR_BREAKPOINT, 3);
    trap_hook = hook_note_frame;
    expect("vector", VECTOR_BREAKPOINT, try(breakpoint, 0).vector);
    expect("frame of a trap in ring 0", STACK_VA + PAGE_BYTES, frame_address);
    expect("A and D of the stack", ACCESSED | DIRTY, *leaf(STACK_VA) & (ACCESSED | DIRTY));
}

static void check_interrupt_stack_ring3(word unused)
{
    (void)unused;
    map_new(STACK_VA, WRITABLE);
    set_interrupt_stack(7, STACK_VA + PAGE_BYTES - 8);
    use_interrupt_stack(USER_RETURN_VECTOR, 7);
    trap_hook = hook_note_frame;
    expect_none("ring 3 stay", try_user_read(USER_STACK_VA));
    expect("frame, aligned to 16 bytes", STACK_VA + PAGE_BYTES - 16, frame_address);
}

/* The frame is aligned to 16 bytes whatever RSP was, and RSP itself is in it. */
static void misaligned_breakpoint(word by)
{
    __asm__ volatile("movq %%rsp, %%rbx; subq %0, %%rsp; int3; movq %%rbx, %%rsp" : : "r"(by) : "rbx", "memory");
}

static void check_frame_aligned(word unused)
{
    (void)unused;
    trap_hook = hook_note_frame;
    for (word by = 1; by < 17; by++) {
        struct outcome outcome = try(misaligned_breakpoint, by);

        expect("vector", VECTOR_BREAKPOINT, outcome.vector);
        expect("alignment of the frame", 0, frame_address & 15);
        expect("RSP in the frame", frame_address, outcome.frame.sp & ~(word)15);
        expect("SS in the frame", KERNEL_DATA, outcome.frame.ss);
    }
}

/* No stack for the event, none for its page fault: a double fault, on a stack of its own. */
static void lose_stack(word stack)
{
    __asm__ volatile("movq %%rsp, %%rbx; movq %0, %%rsp; int3; movq %%rbx, %%rsp" : : "r"(stack) : "rbx", "memory");
}

static void check_double_fault(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_interrupt_stack(1, default_trap_stack());
    use_interrupt_stack(VECTOR_DOUBLE_FAULT, 1);
    outcome = try(lose_stack, STACK_VA);
    expect_trap("event without a stack", outcome, VECTOR_DOUBLE_FAULT, 0);
    expect("RSP", STACK_VA, outcome.frame.sp);
    expect("CR2", STACK_VA - 8, read_cr2());
}

/* The page fault has a stack of its own: it is delivered instead, and the event comes again when the page is there. */
static bool hook_map_stack(struct frame *frame)
{
    if (frame->vector != VECTOR_PAGE_FAULT)
        return false;
    map_new(STACK_VA - PAGE_BYTES, WRITABLE);
    return true;
}

static void check_fault_of_push(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_interrupt_stack(2, default_trap_stack());
    use_interrupt_stack(VECTOR_PAGE_FAULT, 2);
    outcome = try(lose_stack, STACK_VA);
    expect_page_fault("push of the event", outcome, STACK_VA - 8, ERROR_WRITE);
    trap_hook = hook_map_stack;
    outcome = try(lose_stack, STACK_VA);
    expect("event when its stack is there", VECTOR_BREAKPOINT, outcome.vector);
}

static word read_fs_word(void)
{
    word value;

    __asm__ volatile("movq %%fs:8, %0" : "=r"(value));
    return value;
}

static word read_gs_word(void)
{
    word value;

    __asm__ volatile("movq %%gs:8, %0" : "=r"(value));
    return value;
}

static void check_segment_bases(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    ((volatile word *)TEST_VA)[1] = 0x1111;
    ((volatile word *)TEST_VA)[3] = 0x2222;
    wrmsr(MSR_FS_BASE, TEST_VA);
    wrmsr(MSR_GS_BASE, TEST_VA + 16);
    expect("word under FS", 0x1111, read_fs_word());
    expect("word under GS", 0x2222, read_gs_word());
    expect("FS base", TEST_VA, rdmsr(MSR_FS_BASE));
}

static void check_swapgs(word unused)
{
    (void)unused;
    map_new(TEST_VA, WRITABLE);
    ((volatile word *)TEST_VA)[1] = 1;
    ((volatile word *)TEST_VA)[3] = 2;
    wrmsr(MSR_GS_BASE, TEST_VA);
    wrmsr(MSR_KERNEL_GS_BASE, TEST_VA + 16);
    expect("before", 1, read_gs_word());
    __asm__ volatile("swapgs" : : : "memory");
    expect("after SWAPGS", 2, read_gs_word());
    expect("kernel GS base", TEST_VA, rdmsr(MSR_KERNEL_GS_BASE));
    __asm__ volatile("swapgs" : : : "memory");
    expect("after the second", 1, read_gs_word());
}

static void check_swapgs_ring3(word unused)
{
    static const uint8_t code[] = {0x0F, 0x01, 0xF8};

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    expect_trap("SWAPGS in ring 3", try_user(TEST_VA, 0), VECTOR_PROTECTION, 0);
}

static void check_base_instructions(word unused)
{
    word base = 0;

    (void)unused;
    require(has_structured(STRUCTURED_FSGSBASE), "the CPU has no RDFSBASE");
    write_cr4(read_cr4() | CR4_FSGSBASE);
    __asm__ volatile("wrfsbase %1; rdfsbase %0" : "=r"(base) : "r"((word)TEST_VA));
    expect("base read back", TEST_VA, base);
    expect("base in the MSR", TEST_VA, rdmsr(MSR_FS_BASE));
}

static void jump_to(word va)
{
    __asm__ volatile("jmp *%0" : : "r"(va));
}

static void check_canonical(word unused)
{
    (void)unused;
    expect_trap("read", try_read(NOT_CANONICAL), VECTOR_PROTECTION, 0);
    expect_trap("write", try_write(HIGH_HALF - 4096), VECTOR_PROTECTION, 0);
    expect_trap("ring 3 read", try_user_read(NOT_CANONICAL), VECTOR_PROTECTION, 0);
    expect_trap("jump", try(jump_to, NOT_CANONICAL), VECTOR_PROTECTION, 0);
    expect_page_fault("last address of the lower half", try_read(NOT_CANONICAL - 4), NOT_CANONICAL - 4, 0);
    expect_page_fault("first address of the upper half", try_read(HIGH_HALF), HIGH_HALF, 0);
}

static void check_upper_half(word unused)
{
    static const word addresses[] = {HIGH_HALF, 0xFFFFFFFF80000000ull, 0xFFFFFFFFFFFFF000ull, 0x00007FFFFFFFF000ull};

    (void)unused;
    for (unsigned i = 0; i < 4; i++) {
        word frame = map_new(addresses[i], WRITABLE);

        *at(addresses[i]) = i + 1;
        expect("write at the edge of a half", i + 1, *at(frame));
        *leaf(addresses[i]) = 0;
        invlpg(addresses[i]);
        expect_page_fault("unmapped again", try_read(addresses[i]), addresses[i], 0);
    }
}

/* All 512 entries of the root lead somewhere of their own. */
static void check_whole_root(word unused)
{
    (void)unused;
    for (word i = 2; i < 512; i += 30) {
        word va = (i << 39) | (i >= 256 ? 0xFFFF000000000000ull : 0) | 0x1000;

        map_new(va, WRITABLE);
        *at(va) = (uint32_t)i;
    }
    for (word i = 2; i < 512; i += 30)
        expect("word under an entry of the root", i, *at((i << 39) | (i >= 256 ? 0xFFFF000000000000ull : 0) | 0x1000));
}

static void set_cr8(word value)
{
    __asm__ volatile("movq %0, %%cr8" : : "r"(value));
}

static word read_cr8(void)
{
    word value;

    __asm__ volatile("movq %%cr8, %0" : "=r"(value));
    return value;
}

static void check_cr8(word unused)
{
    (void)unused;
    for (word priority = 15; priority < 16; priority--) {
        set_cr8(priority);
        expect("CR8", priority, read_cr8());
    }
}

/* A 32-bit write of a register clears its upper half; a trap keeps all of every register. */
static void check_wide_registers(word unused)
{
    static const uint8_t code[] = {0x49, 0x89, 0xF8, 0x49, 0x89, 0xFF, 0xCD, USER_RETURN_VECTOR}; /* MOV R8, RDI; MOV R15, RDI */
    struct outcome outcome;

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    outcome = try_user(TEST_VA, 0x123456789ABCDEF0ull);
    expect("R8", 0x123456789ABCDEF0ull, outcome.frame.r8);
    expect("R15", 0x123456789ABCDEF0ull, outcome.frame.r15);
}

static const struct test_case cases[] = {
    {"longmode.syscall", check_syscall, 0},
    {"longmode.syscall-flags", check_syscall_flags, 0},
    {"longmode.syscall-off", check_syscall_off, 0},
    {"longmode.syscall-from-compatibility-mode", check_syscall_compatible, 0},
    {"longmode.syscall-entry-absent", check_syscall_entry_absent, 0},
    {"longmode.compatibility-mode", check_compatibility, 0},
    {"longmode.compatibility-mode-fault", check_compatibility_fault, 0},
    {"longmode.interrupt-stack", check_interrupt_stack, 0},
    {"longmode.interrupt-stack-from-ring3", check_interrupt_stack_ring3, 0},
    {"longmode.frame-aligned", check_frame_aligned, 0},
    {"longmode.double-fault", check_double_fault, 0},
    {"longmode.fault-of-an-events-push", check_fault_of_push, 0},
    {"longmode.segment-bases", check_segment_bases, 0},
    {"longmode.swapgs", check_swapgs, 0},
    {"longmode.swapgs-in-ring3", check_swapgs_ring3, 0},
    {"longmode.fsgsbase", check_base_instructions, 0},
    {"longmode.canonical-addresses", check_canonical, 0},
    {"longmode.halves", check_upper_half, 0},
    {"longmode.whole-root", check_whole_root, 0},
    {"longmode.cr8", check_cr8, 0},
    {"longmode.wide-registers", check_wide_registers, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
