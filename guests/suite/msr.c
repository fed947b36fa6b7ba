/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Model-specific registers, and CPUID's word against what the CPU does. */
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

static void round_trip(uint32_t msr, uint64_t value)
{
    uint64_t before = rdmsr(msr);

    wrmsr(msr, value);
    expect("value written", value, rdmsr(msr));
    wrmsr(msr, before);
    expect("value put back", before, rdmsr(msr));
}

static void check_sysenter(word unused)
{
    (void)unused;
    require(has_base(BASE_SEP), "the CPU has no SYSENTER");
    round_trip(MSR_SYSENTER_CS, 0x1238);
    round_trip(MSR_SYSENTER_ESP, 0x12345678);
    round_trip(MSR_SYSENTER_EIP, 0x7654320);
}

static void check_syscall(word unused)
{
    (void)unused;
    require(has_extended(EXTENDED_SYSCALL), "the CPU has no SYSCALL");
    round_trip(MSR_STAR, 0x0013000800001000ull);
    if (!has_extended(EXTENDED_LM))
        return;
    round_trip(MSR_LSTAR, 0xFFFFFFFF81000000ull);
    round_trip(MSR_CSTAR, 0xFFFFFFFF82000000ull);
    round_trip(MSR_FMASK, 0x47700);
}

static void check_bases(word unused)
{
    (void)unused;
    require(has_extended(EXTENDED_LM), "the CPU has no long mode");
    round_trip(MSR_KERNEL_GS_BASE, 0xFFFF888000001000ull);
    if (PAGING_LEVELS == 4) {
        round_trip(MSR_FS_BASE, 0x00007F0000001000ull);
        round_trip(MSR_GS_BASE, 0xFFFF800000001000ull);
    }
}

static void check_efer(word unused)
{
    uint64_t efer;

    (void)unused;
    require(has_efer(), "the CPU has no EFER");
    efer = rdmsr(MSR_EFER);
    if (has_extended(EXTENDED_SYSCALL))
        round_trip(MSR_EFER, efer ^ EFER_SCE);
    if (has_extended(EXTENDED_NX))
        round_trip(MSR_EFER, efer ^ EFER_NXE);
    expect("LMA", PAGING_LEVELS == 4 ? EFER_LMA : 0, rdmsr(MSR_EFER) & EFER_LMA);
    wrmsr(MSR_EFER, efer ^ EFER_LMA);
    expect("LMA after a write, which does not change it", efer & EFER_LMA, rdmsr(MSR_EFER) & EFER_LMA);
}

static void check_pat(word unused)
{
    (void)unused;
    require(has_base(BASE_PAT), "the CPU has no PAT");
    expect("PAT at reset", 0x0007040600070406ull, rdmsr(MSR_PAT));
    round_trip(MSR_PAT, 0x0606060606060606ull);
}

static void check_apic_base(word unused)
{
    (void)unused;
    require(has_base(BASE_APIC), "the CPU has no APIC");
    expect("address", 0xFEE00000, rdmsr(MSR_APIC_BASE) & 0xFFFFF000);
    expect("bootstrap processor, enabled", 0x900, rdmsr(MSR_APIC_BASE) & 0x900);
}

static void check_ring3(word unused)
{
    static const uint8_t read[] = {0x0F, 0x32}, write[] = {0x0F, 0x30};
    word frame = map_new(TEST_VA, USER);

    (void)unused;
    memcpy((void *)frame, read, sizeof read);
    expect_trap("RDMSR in ring 3", try_user(TEST_VA, 0), VECTOR_PROTECTION, 0);
    memcpy((void *)frame, write, sizeof write);
    expect_trap("WRMSR in ring 3", try_user(TEST_VA, 0), VECTOR_PROTECTION, 0);
}

static void check_cpuid_ring3(word unused)
{
    static const uint8_t code[] = {0x31, 0xC0, 0x0F, 0xA2, 0xCD, USER_RETURN_VECTOR}; /* XOR EAX, EAX; CPUID */

    (void)unused;
    memcpy((void *)map_new(TEST_VA, USER), code, sizeof code);
    expect("highest leaf", cpuid(0, 0).eax, try_user(TEST_VA, 0).value);
}

static void check_cpuid(word unused)
{
    (void)unused;
    expect_true("there is a leaf 1", cpuid(0, 0).eax >= 1);
    expect_true("there are extended leaves", cpuid_has_leaf(0x80000001u));
    expect_true("there is an FPU, or it is told that there is none", cpuid(1, 0).eax != 0);
    expect_true("physical addresses have 32 to 52 bits", physical_address_bits() >= 32 && physical_address_bits() <= 52);
    if (has_extended(EXTENDED_LM))
        expect("bits of a linear address", 48, cpuid(0x80000008u, 0).eax >> 8 & 0xFF);
    expect_true("long mode comes with PAE", !has_extended(EXTENDED_LM) || has_base(BASE_PAE));
    expect_true("long mode comes with NX", !has_extended(EXTENDED_LM) || has_extended(EXTENDED_NX));
    expect_true("VMX is not told to guests", !(cpuid(1, 0).ecx >> 5 & 1));
}

static void set_cr4(word value)
{
    write_cr4(value);
}

/* Each feature that CPUID has can be turned on, and off again. */
static void check_cr4(word unused)
{
    struct {
        const char *name;
        bool has;
        word bit;
    } features[] = {
        {"PGE", has_base(BASE_PGE), CR4_PGE},
        {"SMEP", has_structured(STRUCTURED_SMEP), CR4_SMEP},
        {"SMAP", has_structured(STRUCTURED_SMAP), CR4_SMAP},
    };
    word before = read_cr4();

    (void)unused;
    for (unsigned i = 0; i < sizeof features / sizeof *features; i++) {
        if (!features[i].has)
            continue;
        expect_none(features[i].name, try(set_cr4, before | features[i].bit));
        expect(features[i].name, before | features[i].bit, read_cr4());
        write_cr4(before);
    }
}

static uint64_t rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void check_time_stamp(word unused)
{
    uint64_t last = rdtsc();

    (void)unused;
    for (unsigned i = 0; i < 100; i++) {
        uint64_t now = rdtsc();

        expect_true("the time stamp does not go back", now >= last);
        last = now;
    }
}

static const struct test_case cases[] = {
    {"msr.sysenter", check_sysenter, 0},
    {"msr.syscall", check_syscall, 0},
    {"msr.bases", check_bases, 0},
    {"msr.efer", check_efer, 0},
    {"msr.pat", check_pat, 0},
    {"msr.apic-base", check_apic_base, 0},
    {"msr.ring3", check_ring3, 0},
    {"cpuid.ring3", check_cpuid_ring3, 0},
    {"cpuid.consistent", check_cpuid, 0},
    {"cpuid.cr4-agrees", check_cr4, 0},
    {"msr.time-stamp", check_time_stamp, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
