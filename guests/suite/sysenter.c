/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SYSENTER and SYSEXIT; in long mode from compatibility-mode code, and back to it. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

#define CODE_VA 0x50000000u /* within reach of 32-bit code */
enum { RETURN_OFFSET = 16 };

extern word seen_cs, seen_ss, seen_sp, seen_flags;
void sysenter_entry(void);

/* MOV ESI, ESP; MOV EBP, return; SYSENTER; at the return: INT. */
static const uint8_t CODE[] = {0x89, 0xE6, 0xBD, RETURN_OFFSET, 0, 0, 0x50, 0x0F, 0x34,
                               0xF4, 0xF4, 0xF4, 0xF4, 0xF4, 0xF4, 0xF4, 0xCD, USER_RETURN_VECTOR};

/* AMD's processors know neither instruction in long mode. */
static bool is_amd(void)
{
    return cpuid(0, 0).ebx == 0x68747541; /* "Auth" of AuthenticAMD */
}

static void require_sysenter(void)
{
    require(has_base(BASE_SEP), "the CPU has no SYSENTER");
    require(PAGING_LEVELS < 4 || !is_amd(), "the CPU has no SYSENTER in long mode");
}

static void set_up(void)
{
    require_sysenter();
    memcpy((void *)map_new(CODE_VA, USER), CODE, sizeof CODE);
    wrmsr(MSR_SYSENTER_CS, KERNEL_CODE);
    wrmsr(MSR_SYSENTER_ESP, default_trap_stack());
    wrmsr(MSR_SYSENTER_EIP, (word)sysenter_entry);
    user_selector = USER_CODE32;
}

static void check_there_and_back(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up();
    user_flags = FLAG_FIXED | FLAG_CARRY;
    outcome = try_user(CODE_VA, 0);
    expect_none("SYSENTER and SYSEXIT", outcome);
    expect("CS inside", KERNEL_CODE, seen_cs);
    expect("SS inside", KERNEL_DATA, seen_ss);
    expect("SP inside", default_trap_stack(), seen_sp);
    expect("IF inside", 0, seen_flags & FLAG_INTERRUPT);
    expect("CS after", USER_CODE32, outcome.cs);
    expect("SS after", USER_DATA, outcome.frame.ss);
    expect("IP after", CODE_VA + RETURN_OFFSET + 2, outcome.ip);
    expect("SP after", USER_STACK_VA + PAGE_BYTES, outcome.frame.sp);
}

static void check_not_set_up(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up();
    wrmsr(MSR_SYSENTER_CS, 0);
    outcome = try_user(CODE_VA, 0);
    expect_trap("SYSENTER without a code segment", outcome, VECTOR_PROTECTION, 0);
}

static void check_entry_absent(word unused)
{
    struct outcome outcome;

    (void)unused;
    set_up();
    wrmsr(MSR_SYSENTER_EIP, TEST_VA);
    outcome = try_user(CODE_VA, 0);
    expect_page_fault("fetch of an absent entry", outcome, TEST_VA, has_nx() ? ERROR_FETCH : 0);
    expect("CS", KERNEL_CODE, outcome.cs);
}

static void check_sysexit_ring3(word unused)
{
    static const uint8_t code[] = {0x0F, 0x35};

    (void)unused;
    require_sysenter();
    memcpy((void *)map_new(CODE_VA, USER), code, sizeof code);
    expect("SYSEXIT in ring 3", VECTOR_PROTECTION, try_user(CODE_VA, 0).vector);
}

static const struct test_case cases[] = {
    {"sysenter.there-and-back", check_there_and_back, 0},
    {"sysenter.not-set-up", check_not_set_up, 0},
    {"sysenter.entry-absent", check_entry_absent, 0},
    {"sysenter.sysexit-in-ring3", check_sysexit_ring3, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
