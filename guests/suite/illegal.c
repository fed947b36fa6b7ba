/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of mode that the manual forbids with #GP. QEMU makes them, and with them ends: hence a guest of its own. The
 * forbidden steps that QEMU survives are in manual.c.
 */
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

static void set_cr0(word value)
{
    write_cr0(value);
}

#if PAGING_LEVELS == 4
static void set_cr4(word value)
{
    write_cr4(value);
}
#endif

static void check_paging_without_protection(word unused)
{
    (void)unused;
    expect_trap("CR0.PG without PE", try(set_cr0, read_cr0() & ~(word)CR0_PE), VECTOR_PROTECTION, 0);
}

/* In 64-bit code neither PAE nor paging can go. */
static void check_long_mode_stays(word unused)
{
#if PAGING_LEVELS == 4
    expect_trap("CR4 without PAE", try(set_cr4, read_cr4() & ~(word)CR4_PAE), VECTOR_PROTECTION, 0);
    expect_trap("CR0 without PG", try(set_cr0, read_cr0() & ~CR0_PG), VECTOR_PROTECTION, 0);
#else
    require(false, "only long mode needs PAE");
#endif
    (void)unused;
}

static const struct test_case cases[] = {
    {"illegal.long-mode-without-pae-or-paging", check_long_mode_stays, 0},
    {"illegal.pg-without-pe", check_paging_without_protection, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
