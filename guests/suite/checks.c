/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a processor checks before it does as it is told: privilege, alignment, canonical addresses, prefixes, encodings,
 * the x87 unit's and the debug registers' rules. engine.c has segment limits and types. suite.toml lists the cases
 * that are known to fail.
 */
#include "../lib/ports.h"
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum {
    VECTOR_DEBUG = 1,
    VECTOR_OVERFLOW = 4,
    VECTOR_BOUND = 5,
    VECTOR_NO_FPU = 7,
    VECTOR_FPU_ERROR = 16,
    VECTOR_ALIGNMENT = 17,
};
enum { CR0_MP = 1 << 1, CR0_EM = 1 << 2, CR0_NE = 1 << 5, CR0_AM = 1 << 18, CR4_DE = 1 << 3, CR4_OSFXSR = 1 << 9 };
enum { DR6_BREAKPOINT_0 = 1 << 0, DR6_ACCESS = 1 << 13, DR6_STEP = 1 << 14 };
enum { DR7_ENABLE_0 = 1 << 1, DR7_PROTECT = 1 << 13, DR7_WRITE_4_BYTES = 0xD << 16, DR7_FIXED = 1 << 10 };
enum { BASE_SSE = 25, CODE_BYTES = 16 };
enum {
    MORE_PCLMUL = 1,
    MORE_SSSE3 = 9,
    MORE_SSE41 = 19,
    MORE_SSE42 = 20,
    MORE_MOVBE = 22,
    MORE_POPCNT = 23,
    MORE_AES = 25,
    MORE_XSAVE = 26,
    MORE_RDRAND = 30,
};

#define NOT_CANONICAL 0x0000800000000000ull

/* Machine code of a case's own: in ring 3 it runs at TEST_VA. */
struct code {
    const char *name;
    uint8_t bytes[CODE_BYTES];
};

static struct outcome run_in_user(const uint8_t *bytes)
{
    memcpy((void *)map_new(TEST_VA, USER), bytes, CODE_BYTES);
    invlpg(TEST_VA);
    return try_user(TEST_VA, TEST_VA);
}

static struct outcome run_in_kernel(const uint8_t *bytes)
{
    uint8_t *copy = (uint8_t *)map_new(TEST_VA, WRITABLE);

    memcpy(copy, bytes, CODE_BYTES);
    copy[CODE_BYTES] = 0xC3;
    invlpg(TEST_VA);
    return try_fetch(TEST_VA);
}

static void expect_each(const struct code *codes, unsigned count, struct outcome (*run)(const uint8_t *), unsigned vector)
{
    for (unsigned i = 0; i < count; i++) {
        struct outcome outcome = run(codes[i].bytes);
        expect_trap(codes[i].name, outcome, vector, 0);
        expect(codes[i].name, TEST_VA, outcome.ip);
    }
}
#define EXPECT_EACH(codes, run, vector) expect_each(codes, sizeof(codes) / sizeof *(codes), run, vector)

/* ---- privilege ---- */

static void check_privileged(word unused)
{
    static const struct code codes[] = {
        {"HLT", {0xF4}},
        {"CLI", {0xFA}},
        {"STI", {0xFB}},
        {"CLTS", {0x0F, 0x06}},
        {"INVD", {0x0F, 0x08}},
        {"WBINVD", {0x0F, 0x09}},
        {"LGDT", {0x0F, 0x01, 0x17}},
        {"LIDT", {0x0F, 0x01, 0x1F}},
        {"LMSW", {0x0F, 0x01, 0xF0}},
        {"INVLPG", {0x0F, 0x01, 0x3F}},
        {"LLDT", {0x0F, 0x00, 0xD0}},
        {"LTR", {0x0F, 0x00, 0xD8}},
        {"MOV from CR0", {0x0F, 0x20, 0xC0}},
        {"MOV to CR0", {0x0F, 0x22, 0xC0}},
        {"MOV to CR3", {0x0F, 0x22, 0xD8}},
        {"MOV from CR4", {0x0F, 0x20, 0xE0}},
        {"MOV from DR7", {0x0F, 0x21, 0xF8}},
        {"MOV to DR7", {0x0F, 0x23, 0xF8}},
        {"RDMSR", {0x0F, 0x32}},
        {"WRMSR", {0x0F, 0x30}},
        {"IN", {0xEC}},
        {"OUT", {0xEE}},
    };

    (void)unused;
    EXPECT_EACH(codes, run_in_user, VECTOR_PROTECTION);
}

/* ---- encodings ---- */

static void check_undefined(word unused)
{
    static const struct code codes[] = {
        {"UD0", {0x0F, 0xFF, 0xC0}},
        {"UD1", {0x0F, 0xB9, 0xC0}},
        {"UD2", {0x0F, 0x0B}},
        {"MOV to CS", {0x8E, 0xC8}},
        {"MOV to segment 6", {0x8E, 0xF0}},
        {"LSS of a register", {0x0F, 0xB2, 0xC0}},
        {"LEA of a register", {0x8D, 0xC0}},
        {"CMPXCHG8B of a register", {0x0F, 0xC7, 0xC8}},
        {"LGDT of a register", {0x0F, 0x01, 0xD2}},
        {"MOV from CR1", {0x0F, 0x20, 0xC8}},
        {"MOV to CR5", {0x0F, 0x22, 0xE8}},
        {"group 4, /7", {0xFE, 0xF8}},
        {"group 5, /7", {0xFF, 0xF8}},
    };

    (void)unused;
    EXPECT_EACH(codes, run_in_kernel, VECTOR_INVALID_OPCODE);
}

static void check_lock(word unused)
{
    static const struct code codes[] = {
        {"LOCK ADD to a register", {0xF0, 0x01, 0xC0}},
        {"LOCK ADD from memory", {0xF0, 0x03, 0x07}},
        {"LOCK INC of a register", {0xF0, 0xFE, 0xC0}},
        {"LOCK NOT of a register", {0xF0, 0xF6, 0xD0}},
        {"LOCK CMPXCHG of registers", {0xF0, 0x0F, 0xB1, 0xC0}},
        {"LOCK CMP", {0xF0, 0x39, 0x07}},
    };

    (void)unused;
    EXPECT_EACH(codes, run_in_user, VECTOR_INVALID_OPCODE);
}

static void check_lock_elsewhere(word unused)
{
    static const struct code codes[] = {
        {"LOCK MOV to memory", {0xF0, 0x89, 0x07}},
        {"LOCK MOV from memory", {0xF0, 0x8B, 0x07}},
        {"LOCK XCHG of registers", {0xF0, 0x87, 0xC0}},
        {"LOCK TEST", {0xF0, 0x85, 0x07}},
        {"LOCK PUSH", {0xF0, 0x50}},
        {"LOCK JMP", {0xF0, 0xEB, 0x00}},
        {"LOCK BT", {0xF0, 0x0F, 0xA3, 0x07}},
        {"LOCK BTS of a register", {0xF0, 0x0F, 0xAB, 0xC8}},
        {"LOCK BTC of a register, immediate", {0xF0, 0x0F, 0xBA, 0xF8, 0x01}},
        {"LOCK CPUID", {0xF0, 0x0F, 0xA2}},
        {"LOCK NOP", {0xF0, 0x90}},
    };

    (void)unused;
    EXPECT_EACH(codes, run_in_user, VECTOR_INVALID_OPCODE);
}

/* What CPUID does not show is not there. */
static void check_hidden(word unused)
{
    static const struct {
        uint32_t shown; /* in ECX of leaf 1 */
        struct code code;
    } hidden[] = {
        {1u << MORE_POPCNT, {"POPCNT", {0xF3, 0x0F, 0xB8, 0xC0}}},
        {1u << MORE_SSSE3, {"PABSB", {0x0F, 0x38, 0x1C, 0xC0}}},
        {1u << MORE_SSE41, {"PMULLD", {0x66, 0x0F, 0x38, 0x40, 0xC0}}},
        {1u << MORE_SSE42, {"CRC32", {0xF2, 0x0F, 0x38, 0xF1, 0xC0}}},
        {1u << MORE_MOVBE, {"MOVBE", {0x0F, 0x38, 0xF0, 0x07}}},
        {1u << MORE_AES, {"AESENC", {0x66, 0x0F, 0x38, 0xDC, 0xC0}}},
        {1u << MORE_PCLMUL, {"PCLMULQDQ", {0x66, 0x0F, 0x3A, 0x44, 0xC0, 0x00}}},
        {1u << MORE_XSAVE, {"XGETBV", {0x0F, 0x01, 0xD0}}},
        {1u << MORE_RDRAND, {"RDRAND", {0x0F, 0xC7, 0xF0}}},
    };
    uint32_t shown = cpuid(1, 0).ecx;

    (void)unused;
    write_cr4(read_cr4() | CR4_OSFXSR);
    require(!(shown >> MORE_POPCNT & 1), "the CPU has POPCNT");
    for (unsigned i = 0; i < sizeof hidden / sizeof *hidden; i++)
        if (!(shown & hidden[i].shown))
            expect_each(&hidden[i].code, 1, run_in_user, VECTOR_INVALID_OPCODE);
}

/* Instructions behind a VEX or EVEX prefix: none without CR4.OSXSAVE, whatever the CPU has. */
static void check_vex(word unused)
{
    static const struct code codes[] = {
        {"VPADDD of registers", {0xC5, 0xF1, 0xFE, 0xC2}},
        {"VPADDD, three bytes of prefix", {0xC4, 0xE1, 0x71, 0xFE, 0xC2}},
        {"VMOVUPS of registers", {0xC5, 0xF8, 0x10, 0xC1}},
        {"VZEROUPPER", {0xC5, 0xF8, 0x77}},
        {"VPADDD of 256 bits", {0xC5, 0xF5, 0xFE, 0xC2}},
        {"EVEX VPADDD", {0x62, 0xF1, 0x7D, 0x48, 0xFE, 0xC2}},
    };

    (void)unused;
    write_cr4(read_cr4() | CR4_OSFXSR);
    EXPECT_EACH(codes, run_in_user, VECTOR_INVALID_OPCODE);
    EXPECT_EACH(codes, run_in_kernel, VECTOR_INVALID_OPCODE);
}

/* XOP, which is a POP whose reg field is not 0. */
static void check_xop(word unused)
{
    static const struct code codes[] = {
        {"VFRCZPS", {0x8F, 0xE9, 0x78, 0x80, 0xC1}},
        {"8F /1", {0x8F, 0xC8}},
        {"8F /7", {0x8F, 0x3C, 0x24}},
    };

    (void)unused;
    EXPECT_EACH(codes, run_in_user, VECTOR_INVALID_OPCODE);
}

/* What stands before an instruction that is none is carried out, also when the code is run again and again. */
static void check_before_undefined(word unused)
{
    static const uint8_t code[CODE_BYTES] = {0xB8, 5, 0, 0, 0, 0x83, 0xC0, 0x02, 0xC5, 0xF1, 0xFE, 0xC2}; /* EAX = 5 + 2 */

    (void)unused;
    for (unsigned i = 0; i < 3; i++) {
        struct outcome outcome = run_in_user(code);
        expect_trap("VPADDD behind MOV and ADD", outcome, VECTOR_INVALID_OPCODE, 0);
        expect("IP", TEST_VA + 8, outcome.ip);
        expect("EAX", 7, outcome.value);
    }
}

/* Vectors with an error code when the processor raises them have none by INT n, which the suite's handlers do not expect. */
enum { WITH_ERROR_CODE = 1 << 8 | 0x1F << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30 };

static void check_every_vector(word unused)
{
    (void)unused;
    for (unsigned vector = 0; vector < VECTORS; vector++) {
        uint8_t code[CODE_BYTES] = {0xCD, (uint8_t)vector};
        struct outcome outcome;

        if ((vector < 32 && WITH_ERROR_CODE >> vector & 1) || vector == USER_RETURN_VECTOR)
            continue;
        outcome = run_in_kernel(code);
        expect("vector in ring 0", vector, outcome.vector);
        expect("IP in ring 0", TEST_VA + 2, outcome.ip);
        set_gate(vector, stub_of(vector), 0);
        expect("vector without the right", VECTOR_PROTECTION, run_in_user(code).vector);
        set_gate(vector, stub_of(vector), 3);
        outcome = run_in_user(code);
        expect("vector in ring 3", vector, outcome.vector);
        expect("IP in ring 3", TEST_VA + 2, outcome.ip);
        set_gate(vector, stub_of(vector), 0);
    }
}

/* BOUND and INTO trap in 32-bit code, and are undefined in 64-bit code. */
static void check_bound_and_into(word unused)
{
    static const uint8_t bound[CODE_BYTES] = {0x62, 0x07};                               /* BOUND EAX, (EDI) */
    static const uint8_t into[CODE_BYTES] = {0xB0, 0x7F, 0x04, 0x01, 0xCE, 0xCD, USER_RETURN_VECTOR}; /* 7Fh + 1 */
    static const uint8_t into_only[CODE_BYTES] = {0xCE};

    (void)unused;
    if (PAGING_LEVELS < 4) {
        expect_trap("BOUND", run_in_user(bound), VECTOR_BOUND, 0);
        set_gate(VECTOR_OVERFLOW, stub_of(VECTOR_OVERFLOW), 3);
        expect_trap("INTO", run_in_user(into), VECTOR_OVERFLOW, 0);
    } else {
        expect_trap("INTO", run_in_user(into_only), VECTOR_INVALID_OPCODE, 0);
    }
}

/* ---- alignment ---- */

static void check_alignment(word unused)
{
    static const uint8_t aligned[CODE_BYTES] = {0x8B, 0x47, 0x04, 0xCD, USER_RETURN_VECTOR}; /* MOV EAX, 4(EDI) */
    static const uint8_t odd[CODE_BYTES] = {0x8B, 0x47, 0x01, 0xCD, USER_RETURN_VECTOR};

    (void)unused;
    user_flags = FLAG_FIXED | FLAG_AC;
    expect_none("misaligned word without CR0.AM", run_in_user(odd));
    write_cr0(read_cr0() | CR0_AM);
    expect_none("aligned word", run_in_user(aligned));
    user_flags = FLAG_FIXED;
    expect_none("misaligned word without AC", run_in_user(odd));
    user_flags = FLAG_FIXED | FLAG_AC;
    expect_trap("misaligned word", run_in_user(odd), VECTOR_ALIGNMENT, 0);
}

static void check_vector_alignment(word unused)
{
    static const uint8_t load[CODE_BYTES] = {0x0F, 0x28, 0x47, 0x01, 0xCD, USER_RETURN_VECTOR}; /* MOVAPS 1(EDI), XMM0 */

    (void)unused;
    require(has_base(BASE_SSE), "the CPU has no SSE");
    expect_trap("MOVAPS without CR4.OSFXSR", run_in_user(load), VECTOR_INVALID_OPCODE, 0);
    write_cr4(read_cr4() | CR4_OSFXSR);
    expect_trap("misaligned MOVAPS", run_in_user(load), VECTOR_PROTECTION, 0);
}

/* Every operand of 16 bytes in memory, but for the moves that say otherwise (SDM volume 1, 10.7.2). */
static void check_operand_alignment(word unused)
{
    static const struct code codes[] = {
        {"ANDPS", {0x0F, 0x54, 0x47, 0x01}},
        {"ADDPS", {0x0F, 0x58, 0x47, 0x01}},
        {"PADDD", {0x66, 0x0F, 0xFE, 0x47, 0x01}},
        {"SHUFPS", {0x0F, 0xC6, 0x47, 0x01, 0x00}},
        {"MOVNTPS", {0x0F, 0x2B, 0x47, 0x01}},
        {"MOVDQA to memory", {0x66, 0x0F, 0x7F, 0x47, 0x01}},
    };
    static const uint8_t unaligned[CODE_BYTES] = {0x0F, 0x10, 0x47, 0x01, 0xCD, USER_RETURN_VECTOR}; /* MOVUPS */

    (void)unused;
    require(has_base(BASE_SSE + 1), "the CPU has no SSE2");
    write_cr4(read_cr4() | CR4_OSFXSR);
    expect_none("MOVUPS", run_in_user(unaligned));
    EXPECT_EACH(codes, run_in_user, VECTOR_PROTECTION);
}

/* ---- canonical addresses ---- */

#if PAGING_LEVELS == 4
static void read_by_bp(word va)
{
    __asm__ volatile("pushq %%rbp; movq %0, %%rbp; movq (%%rbp), %%rax; popq %%rbp" : : "r"(va) : "rax");
}

static void check_canonical_base(word unused)
{
    (void)unused;
    expect_trap("read by RBP", try(read_by_bp, NOT_CANONICAL), VECTOR_STACK, 0);
}

static void check_canonical_push(word unused)
{
    static const uint8_t push[CODE_BYTES] = {0x48, 0xC7, 0xC4, 0, 0, 0, 0, 0x48, 0x0F, 0xBA, 0xEC, 62, 0x50}; /* RSP = 1 << 62 */

    (void)unused;
    expect_trap("PUSH", run_in_user(push), VECTOR_STACK, 0);
}

static void jump(word va)
{
    __asm__ volatile("jmp *%0" : : "r"(va));
}

static void return_to(word va)
{
    __asm__ volatile("pushq %0; ret" : : "r"(va));
}

static void interrupt_return_to(word va)
{
    __asm__ volatile("movq %%rsp, %%rax; pushq %1; pushq %%rax; pushq $2; pushq %2; pushq %0; iretq"
                     :
                     : "r"(va), "i"(KERNEL_DATA), "i"(KERNEL_CODE)
                     : "rax");
}

/* The fault is at the jump, or at its target as if that had been fetched: manuals and processors differ. */
static void check_canonical_jump(word unused)
{
    (void)unused;
    expect_trap("JMP", try(jump, NOT_CANONICAL), VECTOR_PROTECTION, 0);
    expect_trap("RET", try(return_to, NOT_CANONICAL), VECTOR_PROTECTION, 0);
    expect_trap("IRET", try(interrupt_return_to, NOT_CANONICAL), VECTOR_PROTECTION, 0);
}

/* Where the address is taken the case goes on: with the right one again, before anything can trap. */
static void load_gdt_at(word va)
{
    load_gdt((const void *)va, sizeof gdt);
    load_gdt(gdt, sizeof gdt);
}

static void load_idt_at(word va)
{
    load_idt((const void *)va, sizeof idt);
    load_idt(idt, sizeof idt);
}

static void check_canonical_tables(word unused)
{
    (void)unused;
    expect_trap("LGDT", try(load_gdt_at, NOT_CANONICAL), VECTOR_PROTECTION, 0);
    expect_trap("LIDT", try(load_idt_at, NOT_CANONICAL), VECTOR_PROTECTION, 0);
}

static void load_task(word selector)
{
    __asm__ volatile("ltr %w0" : : "r"(selector));
}

static void load_local_table(word selector)
{
    __asm__ volatile("lldt %w0" : : "r"(selector));
    __asm__ volatile("lldt %w0" : : "r"(0));
}

/* A descriptor of 16 bytes in the spare slots. */
static void set_system_segment(word base, uint32_t limit, unsigned access)
{
    gdt[SPARE_SELECTOR / 8] = descriptor((uint32_t)base, limit, access, 0);
    gdt[SPARE_SELECTOR / 8 + 1] = base >> 32;
}

enum { TASK_ACCESS = 0x89, LDT_ACCESS = 0x82 };

static void check_canonical_task_registers(word unused)
{
    (void)unused;
    set_system_segment(NOT_CANONICAL, 0x67, TASK_ACCESS);
    expect_trap("LTR", try(load_task, SPARE_SELECTOR), VECTOR_PROTECTION, SPARE_SELECTOR);
    expect("its busy bit", TASK_ACCESS, gdt[SPARE_SELECTOR / 8] >> 40 & 0xFF);
    set_system_segment(NOT_CANONICAL, 0xFFF, LDT_ACCESS);
    expect_trap("LLDT", try(load_local_table, SPARE_SELECTOR), VECTOR_PROTECTION, SPARE_SELECTOR);
}

static void check_task_registers(word unused)
{
    (void)unused;
    expect_trap("LTR of the task in use", try(load_task, TASK_STATE), VECTOR_PROTECTION, TASK_STATE);
    expect_trap("LTR of code", try(load_task, KERNEL_CODE), VECTOR_PROTECTION, KERNEL_CODE);
    expect_trap("LLDT of code", try(load_local_table, KERNEL_CODE), VECTOR_PROTECTION, KERNEL_CODE);
    expect_trap("LTR beyond the table", try(load_task, GDT_SLOTS * 8), VECTOR_PROTECTION, GDT_SLOTS * 8);
    expect_trap("LTR half beyond the table", try(load_task, GDT_SLOTS * 8 - 8), VECTOR_PROTECTION, GDT_SLOTS * 8 - 8);
    set_system_segment((word)task_state, 0x67, TASK_ACCESS & 0x7F);
    expect_trap("LTR of an absent segment", try(load_task, SPARE_SELECTOR), VECTOR_NOT_PRESENT, SPARE_SELECTOR);
    set_system_segment((word)task_state, 0x67, TASK_ACCESS);
    gdt[SPARE_SELECTOR / 8 + 1] |= 1ull << 40;
    expect_trap("LTR with a type above", try(load_task, SPARE_SELECTOR), VECTOR_PROTECTION, SPARE_SELECTOR);
    set_system_segment((word)task_state, 0x67, TASK_ACCESS);
    expect_none("LTR", try(load_task, SPARE_SELECTOR));
    expect("its busy bit", TASK_ACCESS | 2, gdt[SPARE_SELECTOR / 8] >> 40 & 0xFF);
    gdt[TASK_STATE / 8] &= ~(2ull << 40);
    load_task(TASK_STATE);
}

static void check_null_task(word unused)
{
    struct outcome outcome = try(load_task, 0);

    (void)unused;
    gdt[TASK_STATE / 8] &= ~(2ull << 40);
    load_task(TASK_STATE);
    expect_trap("LTR", outcome, VECTOR_PROTECTION, 0);
}

static void check_narrow_task(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_system_segment((word)task_state, 0x67, 0x81);
    outcome = try(load_task, SPARE_SELECTOR);
    gdt[TASK_STATE / 8] &= ~(2ull << 40);
    load_task(TASK_STATE);
    expect_trap("LTR of a 16-bit segment", outcome, VECTOR_PROTECTION, SPARE_SELECTOR);
}

static void interrupt(word unused)
{
    (void)unused;
    __asm__ volatile("int $0x90");
}

/* A task state segment of which only the first 64 bytes have canonical addresses. */
static void check_canonical_task_segment(word unused)
{
    static const uint8_t in[CODE_BYTES] = {0xE4, 0x80}; /* in al, 80h */
    word page = 0x7FFFFFFFF000, base = page + PAGE_BYTES - 64;
    struct outcome outcome;

    (void)unused;
    map_new(page, WRITABLE);
    memcpy((void *)base, task_state, 64);
    set_system_segment(base, 0x1FFF, TASK_ACCESS);
    load_task(SPARE_SELECTOR);
    outcome = run_in_user(in);
    set_gate(0x90, stub_of(0x90), 0);
    idt[0x90 * GATE_WORDS] |= 5ull << 32; /* on interrupt stack 5 */
    struct outcome other = try(interrupt, 0);
    gdt[TASK_STATE / 8] &= ~(2ull << 40);
    load_task(TASK_STATE);
    expect_trap("IN with the bitmap's place at no address", outcome, VECTOR_PROTECTION, 0);
    expect_trap("INT with the stack's place at no address", other, VECTOR_PROTECTION, 0);
}

static void write_msr(word msr)
{
    wrmsr((uint32_t)msr, NOT_CANONICAL);
}

static void check_canonical_msrs(word unused)
{
    (void)unused;
    expect_trap("FS base", try(write_msr, MSR_FS_BASE), VECTOR_PROTECTION, 0);
    expect_trap("GS base", try(write_msr, MSR_GS_BASE), VECTOR_PROTECTION, 0);
    expect_trap("kernel GS base", try(write_msr, MSR_KERNEL_GS_BASE), VECTOR_PROTECTION, 0);
    expect_trap("LSTAR", try(write_msr, MSR_LSTAR), VECTOR_PROTECTION, 0);
    expect_trap("CSTAR", try(write_msr, MSR_CSTAR), VECTOR_PROTECTION, 0);
}
#endif

/* ---- x87 ---- */

static void divide_by_zero(word unused)
{
    static const uint16_t control = 0x037B; /* division by zero is not masked */

    (void)unused;
    __asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(control));
}

static void fpu_nop(word unused)
{
    (void)unused;
    __asm__ volatile("fnop");
}

static void fpu_wait(word unused)
{
    (void)unused;
    __asm__ volatile("fwait");
}

static void check_fpu_not_available(word unused)
{
    word cr0 = read_cr0() & ~(word)(CR0_EM | CR0_TS | CR0_MP);

    (void)unused;
    write_cr0(cr0 | CR0_EM);
    expect_trap("FNOP with EM", try(fpu_nop, 0), VECTOR_NO_FPU, 0);
    write_cr0(cr0 | CR0_TS);
    expect_trap("FNOP with TS", try(fpu_nop, 0), VECTOR_NO_FPU, 0);
    expect_none("FWAIT with TS", try(fpu_wait, 0));
    write_cr0(cr0 | CR0_TS | CR0_MP);
    expect_trap("FWAIT with TS and MP", try(fpu_wait, 0), VECTOR_NO_FPU, 0);
    write_cr0(cr0);
}

static void check_fpu_error(word unused)
{
    struct outcome outcome;

    (void)unused;
    write_cr0((read_cr0() & ~(word)(CR0_EM | CR0_TS)) | CR0_NE);
    outcome = try(divide_by_zero, 0);
    __asm__ volatile("fninit");
    expect_trap("division by zero", outcome, VECTOR_FPU_ERROR, 0);
}

enum { SLAVE_COMMAND_PORT = 0xA0, PIC_READ_REQUESTS = 0x0A, FPU_REQUEST = 1 << 5, FPU_CLEAR_PORT = 0xF0 };

/* With CR0.NE clear the error leaves the processor as a signal, which a PC board makes into IRQ 13. */
static void check_fpu_interrupt(word unused)
{
    struct outcome outcome;
    uint8_t requests;

    (void)unused;
    write_cr0(read_cr0() & ~(word)(CR0_EM | CR0_TS | CR0_NE));
    outcome = try(divide_by_zero, 0);
    outb(SLAVE_COMMAND_PORT, PIC_READ_REQUESTS);
    requests = inb(SLAVE_COMMAND_PORT);
    outb(FPU_CLEAR_PORT, 0);
    __asm__ volatile("fninit");
    write_cr0(read_cr0() | CR0_NE);
    expect_none("division by zero", outcome);
    expect("IRQ 13", FPU_REQUEST, requests & FPU_REQUEST);
}

/* ---- debug registers ---- */

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

static void write_dr7(word value)
{
    __asm__ volatile("mov %0, %%dr7" : : "r"(value));
}

static void write_dr0(word value)
{
    __asm__ volatile("mov %0, %%dr0" : : "r"(value));
}

static void read_dr4(word unused)
{
    word value;

    (void)unused;
    __asm__ volatile("mov %%dr4, %0" : "=r"(value));
}

static void read_dr7(word unused)
{
    word value;

    (void)unused;
    __asm__ volatile("mov %%dr7, %0" : "=r"(value));
}

static void check_dr4(word unused)
{
    (void)unused;
    expect_none("DR4 without CR4.DE", try(read_dr4, 0));
    write_cr4(read_cr4() | CR4_DE);
    expect_trap("DR4 with CR4.DE", try(read_dr4, 0), VECTOR_INVALID_OPCODE, 0);
}

#if PAGING_LEVELS == 4
static void check_debug_reserved(word unused)
{
    struct outcome of_dr6 = try(write_dr6, (word)1 << 32);
    struct outcome of_dr7 = try(write_dr7, (word)1 << 32 | DR7_FIXED);

    (void)unused;
    write_dr7(DR7_FIXED);
    expect_trap("DR6 above 32 bits", of_dr6, VECTOR_PROTECTION, 0);
    expect_trap("DR7 above 32 bits", of_dr7, VECTOR_PROTECTION, 0);
}
#endif

static unsigned debug_traps;
static word debug_status, debug_ip;

static bool count_debug(struct frame *frame)
{
    if (frame->vector != VECTOR_DEBUG)
        return false;
    if (!debug_traps++) {
        debug_status = read_dr6();
        debug_ip = frame->ip;
    }
    write_dr6(0);
    write_dr7(DR7_FIXED);
    frame->flags &= ~(word)FLAG_TRAP;
    return true;
}

static void start_counting(void)
{
    debug_traps = 0;
    write_dr6(0);
    trap_hook = count_debug;
}

static void check_data_breakpoint(word unused)
{
    word frame = frame_new();

    (void)unused;
    start_counting();
    write_dr0(frame);
    write_dr7(DR7_FIXED | DR7_ENABLE_0 | DR7_WRITE_4_BYTES);
    (void)*at(frame);
    *at(frame) = 1;
    write_dr7(DR7_FIXED);
    expect("traps", 1, debug_traps);
    expect("DR6", DR6_BREAKPOINT_0, debug_status & 0xF);
}

static void check_code_breakpoint(word unused)
{
    word frame = map_new(TEST_VA, 0);

    (void)unused;
    *(volatile uint8_t *)frame = 0xC3;
    start_counting();
    write_dr0(TEST_VA);
    write_dr7(DR7_FIXED | DR7_ENABLE_0);
    (void)try_fetch(TEST_VA);
    write_dr7(DR7_FIXED);
    expect("traps", 1, debug_traps);
    expect("DR6", DR6_BREAKPOINT_0, debug_status & 0xF);
    expect("IP", TEST_VA, debug_ip);
}

static void check_debug_protect(word unused)
{
    (void)unused;
    start_counting();
    write_dr7(DR7_FIXED | DR7_PROTECT);
    read_dr7(0);
    write_dr7(DR7_FIXED);
    expect("traps", 1, debug_traps);
    expect("DR6", DR6_ACCESS, debug_status & DR6_ACCESS);
}

/* ICEBP, which also has no privilege to check. */
static void check_icebp(word unused)
{
    static const uint8_t icebp[CODE_BYTES] = {0xF1, 0xCD, USER_RETURN_VECTOR};

    (void)unused;
    start_counting();
    expect_none("ICEBP", run_in_user(icebp));
    expect("traps", 1, debug_traps);
    expect("IP", TEST_VA + 1, debug_ip);
}

static void check_single_step(word unused)
{
    static const uint8_t step[CODE_BYTES] = {0x90, 0x90, 0xCD, USER_RETURN_VECTOR};

    (void)unused;
    start_counting();
    user_flags = FLAG_FIXED | FLAG_TRAP;
    expect_none("NOP", run_in_user(step));
    expect("traps", 1, debug_traps);
    expect("IP", TEST_VA + 1, debug_ip);
    expect("DR6", DR6_STEP, debug_status & DR6_STEP);
}

/* TF set by POPF traps from the instruction behind it on, here a load of SS, which puts the trap off by one more. */
static void check_step_over_stack_load(word unused)
{
    static const uint8_t load[CODE_BYTES] = {
        0x8C, 0xD0,             /* MOV %ss, %eax */
        0x9C,                   /* PUSHF */
        0x81, 0x0C, 0x24, 0, 1, 0, 0, /* ORL $TF, (%esp) */
        0x9D,                   /* POPF */
        0x8E, 0xD0,             /* MOV %eax, %ss */
        0x90, 0xCD, USER_RETURN_VECTOR,
    };

    (void)unused;
    start_counting();
    expect_none("MOV to SS", run_in_user(load));
    expect("traps", 1, debug_traps);
    expect("IP", TEST_VA + 14, debug_ip);
}

#if PAGING_LEVELS == 4
extern const char step_syscall_entry[];

/* FMASK takes TF away before a trap is due. */
static void check_step_over_syscall(word unused)
{
    static const uint8_t call[CODE_BYTES] = {0x0F, 0x05, 0xCD, USER_RETURN_VECTOR};

    (void)unused;
    require(has_extended(EXTENDED_SYSCALL), "the CPU has no SYSCALL");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)0x1B << 48 | (uint64_t)KERNEL_CODE << 32);
    wrmsr(MSR_LSTAR, (word)step_syscall_entry);
    wrmsr(MSR_FMASK, FLAG_TRAP);
    start_counting();
    user_flags = FLAG_FIXED | FLAG_TRAP;
    expect_none("SYSCALL with TF masked", run_in_user(call));
    expect("traps with TF masked", 0, debug_traps);
    wrmsr(MSR_FMASK, 0);
    start_counting();
    expect_none("SYSCALL with TF", run_in_user(call));
    expect("traps", 1, debug_traps);
    expect("IP", (word)step_syscall_entry, debug_ip);
}
#endif

#if PAGING_LEVELS == 4
/* AMD64 APM volume 3, SYSRET: the RPL of SS is what STAR says, and 3 for CS alone; Intel's processors make both 3. */
static void check_sysret_stack(word unused)
{
    static const uint8_t call[CODE_BYTES] = {0x0F, 0x05, 0x8C, 0xD0, 0xCD, USER_RETURN_VECTOR}; /* SYSCALL; MOV %ss, %eax */
    struct outcome outcome;

    (void)unused;
    require(has_extended(EXTENDED_SYSCALL), "the CPU has no SYSCALL");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)0x18 << 48 | (uint64_t)KERNEL_CODE << 32);
    wrmsr(MSR_LSTAR, (word)step_syscall_entry);
    wrmsr(MSR_FMASK, 0);
    outcome = run_in_user(call);
    expect_none("SYSCALL and SYSRET", outcome);
    expect("RPL of CS", 3, outcome.cs & 3);
    expect("RPL of SS", 0, outcome.value & 3);
}
#endif

/* ---- segments ---- */

static void load_ss(word selector)
{
    word kept;

    __asm__ volatile("mov %%ss, %0; mov %1, %%ss; mov %0, %%ss" : "=&r"(kept) : "r"(selector));
}

static void load_fs(word selector)
{
    __asm__ volatile("mov %0, %%fs" : : "r"((uint32_t)selector));
}

static void load_spare(void (*load)(word), const char *what, unsigned access, unsigned vector)
{
    gdt[SPARE_SELECTOR / 8] = descriptor(0, 0xFFFFF, access, 0xC);
    expect_trap(what, try(load, SPARE_SELECTOR), vector, SPARE_SELECTOR);
}

static void check_segment_loads(word unused)
{
    (void)unused;
    load_spare(load_fs, "FS with a system segment", 0x89, VECTOR_PROTECTION);
    load_spare(load_fs, "FS with a segment that is not present", 0x13, VECTOR_NOT_PRESENT);
    load_spare(load_ss, "SS with a code segment", 0x9B, VECTOR_PROTECTION);
    load_spare(load_ss, "SS with a read-only segment", 0x91, VECTOR_PROTECTION);
    load_spare(load_ss, "SS of another ring", 0xF3, VECTOR_PROTECTION);
    load_spare(load_ss, "SS with a segment that is not present", 0x13, VECTOR_STACK);
    expect_trap("FS beyond the table", try(load_fs, GDT_SLOTS * 8), VECTOR_PROTECTION, GDT_SLOTS * 8);
    expect_trap("SS with a wrong RPL", try(load_ss, KERNEL_DATA | 3), VECTOR_PROTECTION, KERNEL_DATA);
    if (PAGING_LEVELS < 4)
        expect_trap("SS with a null selector", try(load_ss, 0), VECTOR_PROTECTION, 0);
}

#if PAGING_LEVELS < 4
/* A descriptor is read when it is loaded, and what was read stays. */
static void check_descriptor_kept(word unused)
{
    word frame = frame_new();
    uint32_t value;

    (void)unused;
    *at(frame) = 5;
    gdt[SPARE_SELECTOR / 8] = descriptor((uint32_t)frame, 0xFFF, 0x93, 4);
    load_fs(SPARE_SELECTOR);
    gdt[SPARE_SELECTOR / 8] = 0;
    __asm__ volatile("movl %%fs:0, %0" : "=r"(value));
    expect("word by the descriptor that was loaded", 5, value);
}

static void far_call(word offset)
{
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) pointer = {(uint32_t)offset, SPARE_SELECTOR};

    __asm__ volatile("lcall *%0" : : "m"(pointer) : "memory");
}

/* Sixteen bytes of code, in a page that has a return behind them too. */
static void make_short_code(void)
{
    uint8_t *code = (uint8_t *)map_new(TEST_VA, 0);

    memset(code, 0x90, 32);
    code[0] = code[32] = 0xCB; /* RETF */
    gdt[SPARE_SELECTOR / 8] = descriptor(TEST_VA, 0xF, 0x9B, 4);
}

static void check_code_limit(word unused)
{
    (void)unused;
    make_short_code();
    expect_none("far call within the limit", try(far_call, 0));
    expect_trap("far call beyond the limit", try(far_call, 0x10), VECTOR_PROTECTION, 0);
}

static void check_running_on(word unused)
{
    (void)unused;
    make_short_code();
    expect_trap("running on beyond the limit", try(far_call, 1), VECTOR_PROTECTION, 0);
}

static void check_stack_limit(word unused)
{
    static const uint8_t push[CODE_BYTES] = {
        0xB8, SPARE_SELECTOR | 3, 0, 0, 0, /* MOV $SPARE_SELECTOR|3, %eax */
        0x8E, 0xD0,                        /* MOV %eax, %ss */
        0xBC, 4, 1, 0, 0,                  /* MOV $104h, %esp */
        0x50, 0xCD, USER_RETURN_VECTOR,    /* PUSH %eax */
    };

    (void)unused;
    gdt[SPARE_SELECTOR / 8] = descriptor(USER_STACK_VA, 0xFF, 0xF3, 4);
    expect_trap("PUSH beyond the limit", run_in_user(push), VECTOR_STACK, 0);
}
#endif

static const struct test_case cases[] = {
    {"checks.privileged-instructions", check_privileged, 0},
    {"checks.undefined-instructions", check_undefined, 0},
    {"checks.lock-prefix", check_lock, 0},
    {"checks.lock-prefix-elsewhere", check_lock_elsewhere, 0},
    {"checks.instructions-cpuid-hides", check_hidden, 0},
    {"checks.vex-without-xsave", check_vex, 0},
    {"checks.xop-prefix", check_xop, 0},
    {"checks.before-an-undefined-instruction", check_before_undefined, 0},
    {"checks.every-vector", check_every_vector, 0},
    {"checks.bound-and-into", check_bound_and_into, 0},
    {"checks.alignment", check_alignment, 0},
    {"checks.vector-alignment", check_vector_alignment, 0},
    {"checks.vector-operand-alignment", check_operand_alignment, 0},
    {"checks.fpu-not-available", check_fpu_not_available, 0},
    {"checks.fpu-error", check_fpu_error, 0},
    {"checks.fpu-interrupt", check_fpu_interrupt, 0},
    {"checks.dr4", check_dr4, 0},
    {"checks.data-breakpoint", check_data_breakpoint, 0},
    {"checks.code-breakpoint", check_code_breakpoint, 0},
    {"checks.debug-register-protect", check_debug_protect, 0},
    {"checks.icebp", check_icebp, 0},
    {"checks.single-step", check_single_step, 0},
    {"checks.single-step-over-stack-load", check_step_over_stack_load, 0},
    {"checks.segment-loads", check_segment_loads, 0},
#if PAGING_LEVELS == 4
    {"checks.single-step-over-syscall", check_step_over_syscall, 0},
    {"checks.sysret-stack-selector", check_sysret_stack, 0},
    {"checks.debug-register-reserved-bits", check_debug_reserved, 0},
    {"checks.canonical-stack", check_canonical_base, 0},
    {"checks.canonical-push", check_canonical_push, 0},
    {"checks.canonical-jump", check_canonical_jump, 0},
    {"checks.canonical-tables", check_canonical_tables, 0},
    {"checks.canonical-task-registers", check_canonical_task_registers, 0},
    {"checks.canonical-task-segment", check_canonical_task_segment, 0},
    {"checks.task-registers", check_task_registers, 0},
    {"checks.null-task", check_null_task, 0},
    {"checks.narrow-task", check_narrow_task, 0},
    {"checks.canonical-msrs", check_canonical_msrs, 0},
#else
    {"checks.descriptor-kept", check_descriptor_kept, 0},
    {"checks.code-limit", check_code_limit, 0},
    {"checks.running-on-beyond-the-limit", check_running_on, 0},
    {"checks.stack-limit", check_stack_limit, 0},
#endif
};

void suite_main(void)
{
    RUN_CASES(cases);
}
