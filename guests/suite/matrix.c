/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every combination of the bits of a page's entry and of the entry above it, under every setting of the control
 * registers that bears on them, with each kind of access from both rings: does it fault, with which error code and
 * address, and what becomes of A and D? The answers come from the rules of the Intel SDM, volume 3, 4.6-4.8.
 *
 * Entries with reserved bits are in a case of their own. The argument every=N makes each N-th access only.
 */
#include "../lib/cmdline.h"
#include "../lib/exit.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

int matrix_supervisor(word entry, word va);
int matrix_user(word entry, word va);
void matrix_fault(void);
void matrix_return(void);
extern word matrix_address, matrix_other_fault;

enum { NO_FAULT = -1 };
enum { RING3 = 1, READ = 0, WRITE = 2, FETCH = 4, KINDS = 6 }; /* a kind of access is one of three and maybe RING3 */

/* The control registers of a case, by bits. */
enum { WITH_WP = 1, WITH_SMEP = 2, WITH_SMAP = 4, WITH_AC = 8, WITH_NXE = 16, SETTINGS = PAGING_LEVELS > 2 ? 32 : 16 };
static const char *const setting_names[] = {"wp", "smep", "smap", "ac", "nxe"};
enum { SETTING_BITS = sizeof setting_names / sizeof *setting_names, NAME_BYTES = 40 };

/*
 * The bits of entries, those that say which access is allowed first. 32-bit entries of tables and small pages have no
 * reserved bit and no NX: zeros, whose combinations are left out.
 */
enum { RIGHTS = 4, TABLE_BITS = 5, PAGE_BITS = 8 };
#if PAGING_LEVELS == 2
#define RESERVED 0
#define RESERVED_LARGE ((entry_t)1 << 21)
#define NX 0
#else
#define RESERVED ((entry_t)1 << 51)
#define RESERVED_LARGE RESERVED
#define NX NO_EXECUTE
#endif
#define LARGE_PAT ((entry_t)1 << 12)
static const entry_t table_bits[TABLE_BITS] = {WRITABLE, USER, NX, RESERVED, ACCESSED};
static const entry_t small_bits[PAGE_BITS] = {WRITABLE, USER, NX, RESERVED, ACCESSED, DIRTY, PAT, GLOBAL};
static const entry_t large_bits[PAGE_BITS] = {WRITABLE, USER, NX, RESERVED_LARGE, ACCESSED, DIRTY, LARGE_PAT, GLOBAL};

static char names[SETTINGS][NAME_BYTES];

static unsigned setting;     /* under which accesses are made */
static bool reserved_wanted; /* combinations with reserved bits and no others, or those without */
static unsigned every;
static uint32_t number; /* of combinations so far */
static uint32_t made;   /* accesses */

static word frames;                             /* of the two pages: data, and the code that fetches need */
static volatile entry_t *directory_entry;
static volatile entry_t *page_entries;          /* of both pages */
static entry_t directory_value, page_value;     /* the combination; page_value without an address */

/* ---- what must come --------------------------------------------------------------------------------------------------- */

static bool is_reserved(entry_t entry, entry_t reserved)
{
    return entry & reserved || (!(setting & WITH_NXE) && entry & NX);
}

static bool is_large(void)
{
    return directory_value & LARGE;
}

static bool is_reached(entry_t entry, entry_t reserved)
{
    return entry & PRESENT && !is_reserved(entry, reserved);
}

/* 4.6.1: explicit accesses only, so AC counts for the supervisor's data. */
static bool is_allowed(entry_t all, entry_t any, unsigned kind)
{
    unsigned access = kind & ~(unsigned)RING3;

    if (access == FETCH && any & NX)
        return false;
    if (kind & RING3)
        return all & USER && (access != WRITE || all & WRITABLE);
    if (all & USER && access == FETCH && setting & WITH_SMEP)
        return false;
    if (all & USER && access != FETCH && setting & WITH_SMAP && !(setting & WITH_AC))
        return false;
    return access != WRITE || all & WRITABLE || !(setting & WITH_WP);
}

/* 4.7. */
static int expected_error(unsigned kind)
{
    unsigned access = kind & ~(unsigned)RING3;
    bool tells_fetch = setting & (WITH_NXE | WITH_SMEP);
    int error = (access == WRITE ? ERROR_WRITE : 0) | (kind & RING3 ? ERROR_USER : 0) |
                (access == FETCH && tells_fetch ? ERROR_FETCH : 0);
    entry_t leaf = is_large() ? directory_value : page_value;

    if (!(directory_value & PRESENT))
        return error;
    if (is_reserved(directory_value, is_large() ? RESERVED_LARGE : RESERVED))
        return error | ERROR_PRESENT | ERROR_RESERVED;
    if (!(leaf & PRESENT))
        return error;
    if (!is_large() && is_reserved(leaf, RESERVED))
        return error | ERROR_PRESENT | ERROR_RESERVED;
    return is_allowed(directory_value & leaf, directory_value | leaf, kind) ? NO_FAULT : error | ERROR_PRESENT;
}

/* 4.8. */
static entry_t marks_of(unsigned kind)
{
    return (kind & ~(unsigned)RING3) == WRITE ? ACCESSED | DIRTY : ACCESSED;
}

/* ---- one access ------------------------------------------------------------------------------------------------------- */

static bool is_fetch(unsigned kind)
{
    return kind >= FETCH;
}

static int make_access(unsigned kind, word va)
{
    switch (kind) {
    case READ:
        return matrix_supervisor((word)probe_read, va);
    case WRITE:
        return matrix_supervisor((word)probe_write, va);
    case FETCH:
        return matrix_supervisor((word)probe_fetch, va);
    case READ | RING3:
        return matrix_user(user_probe_read(), va);
    case WRITE | RING3:
        return matrix_user(user_probe_write(), va);
    default:
        return matrix_user(user_probe_fetch(), va);
    }
}

/* A failure is of this combination. */
static void agree(const char *what, unsigned kind, uint64_t expected, uint64_t seen)
{
    static const char *const kinds[KINDS] = {"supervisor read", "user read",        "supervisor write",
                                             "user write",      "supervisor fetch", "user fetch"};

    if (expected == seen)
        return;
    say("%s: %s, directory entry %llx, page's entry %llx:\n", names[setting], kinds[kind],
        (unsigned long long)directory_value, (unsigned long long)page_value);
    expect(what, expected, seen);
}

/* The entries are as the combination says, and the CPU knows. Only what an access has changed needs to be put back. */
static void put_back(volatile entry_t *page_entry, entry_t page, unsigned which)
{
    if (*directory_entry != directory_value) {
        *directory_entry = directory_value;
        *page_entry = page;
        invlpg(TEST_VA);
        invlpg(TEST_VA + PAGE_BYTES);
    } else if (*page_entry != page) {
        *page_entry = page;
        invlpg(TEST_VA + which * PAGE_BYTES);
    }
}

/* An access that faults may leave A in the entry above the page, never in the page's own. */
static void check_entries(volatile entry_t *page_entry, entry_t page, unsigned kind, int error)
{
    entry_t upper = directory_value, seen = *directory_entry;

    if (error == NO_FAULT && is_large())
        upper |= marks_of(kind);
    else if (error == NO_FAULT)
        upper |= ACCESSED;
    else if (!is_large() && is_reached(upper, RESERVED))
        upper |= seen & ACCESSED;
    agree("directory entry afterwards", kind, upper, seen);
    agree("page's entry afterwards", kind, error == NO_FAULT && !is_large() ? page | marks_of(kind) : page, *page_entry);
}

static void check_access(unsigned kind)
{
    unsigned which = is_fetch(kind);
    volatile entry_t *page_entry = &page_entries[which];
    entry_t page = page_value | (frames + which * PAGE_BYTES);
    word va = TEST_VA + which * PAGE_BYTES + (kind == (FETCH | RING3));
    int expected = expected_error(kind), seen;

    put_back(page_entry, page, which);
    seen = make_access(kind, va);
    agree("error code, or -1 for none", kind, (uint64_t)expected, (uint64_t)seen);
    if (seen != NO_FAULT)
        agree("address of the fault", kind, va, matrix_address);
    check_entries(page_entry, page, kind, seen);
    made++;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------ */

/* The entry of a combination of bits; false if the format has no such bits. */
static bool entry_of(const entry_t *bits, unsigned combination, entry_t *entry)
{
    for (; combination; combination >>= 1, bits++) {
        if (!(combination & 1))
            continue;
        if (!*bits)
            return false;
        *entry |= *bits;
    }
    return true;
}

static bool has_reserved(void)
{
    if (is_large())
        return is_reserved(directory_value, RESERVED_LARGE);
    return is_reserved(directory_value | page_value, RESERVED);
}

static void check_kinds(void)
{
    if (has_reserved() != reserved_wanted)
        return;
    for (unsigned kind = 0; kind < KINDS; kind++)
        if (number++ % every == 0)
            check_access(kind);
}

static void check_pages_below(entry_t directory)
{
    directory_value = directory;
    for (unsigned combination = 0; combination < 1 << PAGE_BITS; combination++) {
        page_value = PRESENT;
        if (entry_of(small_bits, combination, &page_value))
            check_kinds();
    }
    for (unsigned combination = 0; combination < 1 << RIGHTS; combination++) {
        page_value = 0;
        if (entry_of(small_bits, combination, &page_value))
            check_kinds();
    }
}

static void check_tables(word table)
{
    for (unsigned combination = 0; combination < 1 << TABLE_BITS; combination++) {
        entry_t entry = table | PRESENT;

        if (entry_of(table_bits, combination, &entry))
            check_pages_below(entry);
    }
    for (unsigned combination = 0; combination < 1 << RIGHTS; combination++) {
        directory_value = table;
        page_value = PRESENT | WRITABLE | USER;
        if (entry_of(table_bits, combination, &directory_value))
            check_kinds();
    }
}

static void check_large_pages(void)
{
    page_value = 0;
    for (unsigned combination = 0; combination < 1 << PAGE_BITS; combination++) {
        directory_value = frames | PRESENT | LARGE;
        if (entry_of(large_bits, combination, &directory_value))
            check_kinds();
    }
}

static void set_flag_ac(bool on)
{
    word flags = on ? FLAG_FIXED | FLAG_AC : FLAG_FIXED;

    __asm__ volatile("push %0; popf" : : "r"(flags) : "memory", "cc");
}

/* PGE, so that G means something. */
static void load_setting(unsigned wanted)
{
    word cr4 = (read_cr4() | CR4_PGE) & ~(word)(CR4_SMEP | CR4_SMAP);
    uint64_t efer = has_nx() ? rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE : 0;

    setting = wanted;
    write_cr0((read_cr0() & ~(word)CR0_WP) | (setting & WITH_WP ? CR0_WP : 0));
    write_cr4(cr4 | (setting & WITH_SMEP ? CR4_SMEP : 0) | (setting & WITH_SMAP ? CR4_SMAP : 0));
    if (has_nx())
        wrmsr(MSR_EFER, efer | (setting & WITH_NXE ? EFER_NXE : 0));
    set_flag_ac(setting & WITH_AC);
}

static const char *lack_of(unsigned wanted)
{
    if (wanted & WITH_SMEP && !has_structured(STRUCTURED_SMEP))
        return "the CPU has no SMEP";
    if (wanted & WITH_SMAP && !has_structured(STRUCTURED_SMAP))
        return "the CPU has no SMAP";
    if (wanted & WITH_NXE && !has_nx())
        return "the CPU has no NX";
    return NULL;
}

static void make_pages(void)
{
    static const uint8_t returns[] = {0xC3, 0xCD, USER_RETURN_VECTOR}; /* for ring 0 and, behind it, ring 3 */

    frames = frames_new_aligned(TABLE_ENTRIES);
    for (unsigned i = 0; i < sizeof returns; i++)
        ((volatile uint8_t *)frames)[PAGE_BYTES + i] = returns[i];
    page_entries = leaf(TEST_VA);
    directory_entry = entry_at(space, TEST_VA, 2);
    matrix_other_fault = stub_of(VECTOR_PAGE_FAULT);
    set_gate(VECTOR_PAGE_FAULT, (word)matrix_fault, 0);
    set_gate(USER_RETURN_VECTOR, (word)matrix_return, 3);
}

static void check_all(word table)
{
    check_tables(table);
    check_large_pages();
    set_flag_ac(false);
}

static void check_setting(word wanted)
{
    const char *lack = lack_of((unsigned)wanted);

    require(!lack, lack);
    make_pages();
    made = 0;
    reserved_wanted = false;
    load_setting((unsigned)wanted);
    check_all((word)table_of(*directory_entry));
    say("%u accesses\n", made);
}

/* Under every setting. */
static void check_reserved(word unused)
{
    word table;

    (void)unused;
    require(PAGING_LEVELS == 2 || physical_address_bits() < 52, "the CPU has every address bit");
    make_pages();
    made = 0;
    reserved_wanted = true;
    table = (word)table_of(*directory_entry);
    for (unsigned wanted = 0; wanted < SETTINGS; wanted++) {
        if (lack_of(wanted))
            continue;
        load_setting(wanted);
        check_all(table);
    }
    say("%u accesses\n", made);
}

static void name_case(char *name, unsigned of_setting)
{
    const char *part = of_setting ? "matrix" : "matrix.none";
    char separator = '.';

    for (unsigned bit = 0;; bit++) {
        while (*part)
            *name++ = *part++;
        while (bit < SETTING_BITS && !(of_setting >> bit & 1))
            bit++;
        if (bit >= SETTING_BITS)
            break;
        *name++ = separator;
        separator = '-';
        part = setting_names[bit];
    }
    *name = '\0';
}

void suite_main(void)
{
    static struct test_case cases[SETTINGS + 1];

    every = cmdline_number("every", 1);
    if (!every)
        guest_exit(EXIT_BAD_ARGUMENTS);
    for (unsigned i = 0; i < SETTINGS; i++) {
        name_case(names[i], i);
        cases[i] = (struct test_case){names[i], check_setting, i};
    }
    cases[SETTINGS] = (struct test_case){"matrix.reserved-bits", check_reserved, 0};
    RUN_CASES(cases);
}
