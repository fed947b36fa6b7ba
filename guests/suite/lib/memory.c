/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "memory.h"

#include "../../lib/string.h"
#include "cpu.h"
#include "report.h"
#include "traps.h"

enum { EVERY_RIGHT = PRESENT | WRITABLE | USER };
enum { MEM_UPPER_OFFSET = 8 }; /* in the multiboot information: KiB above 1 MiB */

extern char image_end[];
extern const char user_blob[], user_blob_end[];

entry_t *space;

static word first_frame; /* address of the first that cases may have */
static word next_frame;
static word end_frame;
static word user_code_frame;
static entry_t *boot_space; /* in no case's memory, so that this can be taken back */
static word base_cr0;
static word base_cr4;

void memory_init(uint32_t multiboot_info)
{
    word end = ((word)1 << 20) + (word)*at(multiboot_info + MEM_UPPER_OFFSET) * 1024;

    next_frame = (word)image_end;
    end_frame = end < IDENTITY_BYTES ? end & -(word)PAGE_BYTES : IDENTITY_BYTES;
    user_code_frame = frame_new();
    memcpy((void *)user_code_frame, user_blob, (size_t)(user_blob_end - user_blob));
    boot_space = space_new();
    first_frame = next_frame;
    base_cr0 = (read_cr0() & ~CR0_TS) | CR0_PG | CR0_WP;
    base_cr4 = PAGING_LEVELS == 2 ? CR4_PSE : CR4_PAE;
}

bool has_nx(void)
{
    return PAGING_LEVELS > 2 && has_extended(EXTENDED_NX);
}

void memory_reset(void)
{
    load_space(boot_space);
    next_frame = first_frame;
    space = space_new();
    if (has_nx())
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    write_cr4(base_cr4);
    load_space(space);
    write_cr0(base_cr0);
}

/* By words: a string instruction of bytes would be four times as many steps. */
static void clear(word at_address, word bytes)
{
    word count = bytes / 4;

    __asm__ volatile("rep stosl" : "+D"(at_address), "+c"(count) : "a"(0) : "memory");
}

word frames_new_aligned(unsigned count)
{
    word bytes = (word)count * PAGE_BYTES;
    word frame = (next_frame + bytes - 1) & -bytes;

    require(frame + bytes <= end_frame, "there is too little memory");
    next_frame = frame + bytes;
    clear(frame, bytes);
    return frame;
}

word frame_new(void)
{
    return frames_new_aligned(1);
}

unsigned frames_left(void)
{
    return (unsigned)((end_frame - next_frame) / PAGE_BYTES);
}

unsigned index_of(word va, unsigned level)
{
    return (unsigned)(va >> (12 + INDEX_BITS * (level - 1))) & (TABLE_ENTRIES - 1);
}

entry_t *table_of(entry_t entry)
{
    return (entry_t *)(word)(entry & ENTRY_ADDRESS);
}

/* An entry of PAE's root has no rights of its own: those bits are reserved. */
static entry_t table_flags(unsigned level)
{
    return PAGING_LEVELS == 3 && level == 3 ? PRESENT : EVERY_RIGHT;
}

entry_t *entry_at(entry_t *root, word va, unsigned level)
{
    entry_t *table = root;

    for (unsigned at_level = PAGING_LEVELS; at_level > level; at_level--) {
        entry_t *entry = &table[index_of(va, at_level)];

        if (!(*entry & PRESENT))
            *entry = frame_new() | table_flags(at_level);
        table = table_of(*entry);
    }
    return &table[index_of(va, level)];
}

void map(entry_t *root, word va, word pa, entry_t flags)
{
    *entry_at(root, va, 1) = pa | flags | PRESENT;
}

word map_new(word va, entry_t flags)
{
    word frame = frame_new();

    map(space, va, frame, flags);
    return frame;
}

/* The CPU keeps the four entries of PAE's root from the CR3 load on, so all are there from the start. */
static void fill_pae_root(entry_t *root)
{
    for (unsigned i = 0; i < 4; i++)
        root[i] = frame_new() | PRESENT;
}

entry_t *space_new(void)
{
    entry_t *root = (entry_t *)frame_new();

    if (PAGING_LEVELS == 3)
        fill_pae_root(root);
    for (word pa = 0; pa < IDENTITY_BYTES; pa += LARGE_BYTES)
        *entry_at(root, pa, 2) = pa | PRESENT | WRITABLE | LARGE;
    map(root, USER_CODE_VA, user_code_frame, USER);
    map(root, USER_STACK_VA, frame_new(), USER | WRITABLE);
    return root;
}

void load_space(entry_t *root)
{
    write_cr3((word)root);
}
