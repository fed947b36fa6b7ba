/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the manual says of segments and instructions and emulating engines like to leave out. suite.toml lists the
 * cases that are known to fail.
 */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { DATA_ACCESS = 0x93, READ_ONLY_ACCESS = 0x91, EXECUTE_ONLY_ACCESS = 0x99, BYTES = 0x4, PAGES = 0xC };

static void load_fs(word selector)
{
    __asm__ volatile("mov %0, %%fs" : : "r"((uint32_t)selector));
}

static void read_fs(word offset)
{
    uint32_t value;

    __asm__ volatile("movl %%fs:(%1), %0" : "=r"(value) : "r"(offset));
}

static void write_fs(word offset)
{
    __asm__ volatile("movl $1, %%fs:(%0)" : : "r"(offset) : "memory");
}

static void use_segment(uint32_t base, uint32_t limit, unsigned access)
{
    require(PAGING_LEVELS < 4, "64-bit code has no limits");
    gdt[SPARE_SELECTOR / 8] = descriptor(base, limit, access, BYTES);
    load_fs(SPARE_SELECTOR);
}

static void check_limit(word unused)
{
    word frame = frame_new();

    (void)unused;
    use_segment((uint32_t)frame, 0xFF, DATA_ACCESS);
    expect_none("last word within the limit", try(read_fs, 0xFC));
    expect_trap("word across the limit", try(read_fs, 0xFD), VECTOR_PROTECTION, 0);
    expect_trap("word beyond the limit", try(write_fs, 0x100), VECTOR_PROTECTION, 0);
}

static void check_expand_down(word unused)
{
    (void)unused;
    use_segment((uint32_t)frame_new(), 0xFF, 0x97);
    expect_trap("word below an expand-down limit", try(read_fs, 0x80), VECTOR_PROTECTION, 0);
    expect_none("word above an expand-down limit", try(read_fs, 0x100));
}

static void check_read_only(word unused)
{
    (void)unused;
    use_segment((uint32_t)frame_new(), 0xFFF, READ_ONLY_ACCESS);
    expect_none("read of a read-only segment", try(read_fs, 0));
    expect_trap("write to a read-only segment", try(write_fs, 0), VECTOR_PROTECTION, 0);
}

static void check_execute_only(word unused)
{
    (void)unused;
    require(PAGING_LEVELS < 4, "64-bit code has no such segments");
    gdt[SPARE_SELECTOR / 8] = descriptor(0, 0xFFFFF, EXECUTE_ONLY_ACCESS, PAGES);
    expect_trap("load of execute-only code into FS", try(load_fs, SPARE_SELECTOR), VECTOR_PROTECTION, SPARE_SELECTOR);
}

static void check_null(word unused)
{
    (void)unused;
    require(PAGING_LEVELS < 4, "64-bit code may use null selectors");
    load_fs(0);
    expect_trap("read by a null selector", try(read_fs, 0x100000), VECTOR_PROTECTION, 0);
}

static void check_base(word unused)
{
    word frame = frame_new();

    (void)unused;
    use_segment((uint32_t)frame, 0xFFF, DATA_ACCESS);
    write_fs(0x20);
    expect("word in a segment with a base", 1, *at(frame + 0x20));
}

static void clear_ac(word unused)
{
    (void)unused;
    __asm__ volatile("clac");
}

static void check_clac(word unused)
{
    (void)unused;
    require(!has_structured(STRUCTURED_SMAP), "the CPU has SMAP");
    expect_trap("CLAC without SMAP", try(clear_ac, 0), VECTOR_INVALID_OPCODE, 0);
}

/* Sixteen bytes are one too many. */
static void check_long_instruction(word unused)
{
    word frame = map_new(TEST_VA, 0);

    (void)unused;
    memset((void *)frame, 0x66, 15);
    ((uint8_t *)frame)[15] = 0x90;
    ((uint8_t *)frame)[16] = 0xC3;
    expect_trap("instruction of 16 bytes", try_fetch(TEST_VA), VECTOR_PROTECTION, 0);
}

static void lock_load(word unused)
{
    (void)unused;
    __asm__ volatile(".byte 0xF0, 0x90"); /* LOCK NOP */
}

static void check_lock(word unused)
{
    (void)unused;
    expect_trap("LOCK where it may not be", try(lock_load, 0), VECTOR_INVALID_OPCODE, 0);
}

/* POPF in ring 3 with IOPL 0 leaves IF and IOPL alone. */
static void check_popf(word unused)
{
    static const uint8_t code[] = {0x68, 0x02, 0x32, 0, 0, 0x9D, 0xCD, USER_RETURN_VECTOR}; /* PUSH 3202h; POPF */

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    expect("flags after POPF in ring 3", FLAG_FIXED, try_user(TEST_VA, 0).flags);
}

static void check_port_ring3(word unused)
{
    static const uint8_t code[] = {0xE4, 0x80}; /* IN AL, 80h */

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    expect_trap("IN from ring 3 without a bitmap", try_user(TEST_VA, 0), VECTOR_PROTECTION, 0);
}

static const struct test_case cases[] = {
    {"engine.segment-base", check_base, 0},
    {"engine.segment-limit", check_limit, 0},
    {"engine.expand-down-segment", check_expand_down, 0},
    {"engine.read-only-segment", check_read_only, 0},
    {"engine.execute-only-segment", check_execute_only, 0},
    {"engine.null-selector", check_null, 0},
    {"engine.clac-without-smap", check_clac, 0},
    {"engine.instruction-too-long", check_long_instruction, 0},
    {"engine.lock-prefix", check_lock, 0},
    {"engine.popf-in-ring3", check_popf, 0},
    {"engine.port-in-ring3", check_port_ring3, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
