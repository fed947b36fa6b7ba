/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control registers, model-specific registers and CPUID. */
#ifndef CPU_H
#define CPU_H

#include "arch.h"

enum { CR0_PE = 1 << 0, CR0_TS = 1 << 3, CR0_WP = 1 << 16 };
#define CR0_CD ((word)1 << 30)
#define CR0_PG ((word)1 << 31)

enum {
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_PGE = 1 << 7,
    CR4_FSGSBASE = 1 << 16,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
};

enum {
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_PAT = 0x277,
    MSR_APIC_BASE = 0x1B,
};
#define MSR_EFER 0xC0000080u
#define MSR_STAR 0xC0000081u
#define MSR_LSTAR 0xC0000082u
#define MSR_CSTAR 0xC0000083u
#define MSR_FMASK 0xC0000084u
#define MSR_FS_BASE 0xC0000100u
#define MSR_GS_BASE 0xC0000101u
#define MSR_KERNEL_GS_BASE 0xC0000102u

enum { EFER_SCE = 1 << 0, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11 };

enum {
    FLAG_CARRY = 1 << 0,
    FLAG_FIXED = 1 << 1,
    FLAG_TRAP = 1 << 8,
    FLAG_INTERRUPT = 1 << 9,
    FLAG_DIRECTION = 1 << 10,
    FLAG_VM = 1 << 17,
    FLAG_AC = 1 << 18,
};

#define READ_REGISTER(name)                                     \
    static inline word read_##name(void)                        \
    {                                                           \
        word value;                                             \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(value));  \
        return value;                                           \
    }
#define WRITE_REGISTER(name)                                          \
    static inline void write_##name(word value)                       \
    {                                                                 \
        __asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory"); \
    }

READ_REGISTER(cr0)
WRITE_REGISTER(cr0)
READ_REGISTER(cr2)
WRITE_REGISTER(cr2)
READ_REGISTER(cr3)
WRITE_REGISTER(cr3)
READ_REGISTER(cr4)
WRITE_REGISTER(cr4)

static inline void invlpg(word va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static inline void reload_cr3(void)
{
    write_cr3(read_cr3());
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid out;

    __asm__ volatile("cpuid" : "=a"(out.eax), "=b"(out.ebx), "=c"(out.ecx), "=d"(out.edx) : "a"(leaf), "c"(subleaf));
    return out;
}

static inline bool cpuid_has_leaf(uint32_t leaf)
{
    return cpuid(leaf & 0x80000000u, 0).eax >= leaf;
}

/* Leaf 1, EDX. */
static inline bool has_base(unsigned bit)
{
    return cpuid(1, 0).edx >> bit & 1;
}

enum { BASE_PSE = 3, BASE_MSR = 5, BASE_PAE = 6, BASE_CX8 = 8, BASE_APIC = 9, BASE_SEP = 11, BASE_PGE = 13, BASE_PAT = 16 };

/* Leaf 7, EBX. */
static inline bool has_structured(unsigned bit)
{
    return cpuid_has_leaf(7) && (cpuid(7, 0).ebx >> bit & 1);
}

enum { STRUCTURED_FSGSBASE = 0, STRUCTURED_SMEP = 7, STRUCTURED_SMAP = 20 };

/* Leaf 0x80000001, EDX. */
static inline bool has_extended(unsigned bit)
{
    return cpuid_has_leaf(0x80000001u) && (cpuid(0x80000001u, 0).edx >> bit & 1);
}

enum { EXTENDED_SYSCALL = 11, EXTENDED_NX = 20, EXTENDED_GIB_PAGES = 26, EXTENDED_LM = 29 };

static inline bool has_efer(void)
{
    return has_extended(EXTENDED_SYSCALL) || has_extended(EXTENDED_NX) || has_extended(EXTENDED_LM);
}

static inline unsigned physical_address_bits(void)
{
    return cpuid_has_leaf(0x80000008u) ? cpuid(0x80000008u, 0).eax & 0xFF : 36;
}

#endif
