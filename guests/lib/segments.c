/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "segments.h"

/* 32-bit task state segment (Intel SDM volume 3, figure 8-2); hardware task switching is not used. */
struct task_state {
    uint32_t back_link;
    uint32_t esp0; /* loaded with ss0 when an interrupt leaves ring 3 */
    uint32_t ss0;
    uint32_t unused[22];
    uint32_t io_bitmap; /* in the upper half: its offset; beyond the limit means no port is open to ring 3 */
};

_Static_assert(sizeof(struct task_state) == 104, "the CPU defines this layout");

struct table_register {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

/*
 * A descriptor is 8 bytes:
 *
 *   63      56 55      48 47      40 39                16 15         0
 *   base 31-24  flags|lim   access        base 23-0        limit 15-0
 *
 * The accessed bit is set from the start: the CPU then never has to write here for code and data.
 */
#define FLAT(access) (0x00CF00000000FFFFull | ((uint64_t)(access) << 40))

enum { GDT_ENTRIES = 6, TASK_ACCESS = 0x89 };

static uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(8))) = {
    0,
    FLAT(0x9B), /* KERNEL_CODE: present, ring 0, execute and read */
    FLAT(0x93), /* KERNEL_DATA: present, ring 0, read and write */
    FLAT(0xFB), /* USER_CODE: present, ring 3, execute and read */
    FLAT(0xF3), /* USER_DATA: present, ring 3, read and write */
    0,          /* TASK_STATE: its base is only known to the linker */
};

static struct task_state task_state = {
    .ss0 = KERNEL_DATA,
    .io_bitmap = sizeof(struct task_state) << 16,
};

static uint64_t task_descriptor(uint32_t base, uint32_t limit)
{
    return limit | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)TASK_ACCESS << 40 | (uint64_t)(base >> 24) << 56;
}

static void load_gdt(void)
{
    struct table_register gdtr = {sizeof gdt - 1, (uint32_t)gdt};

    __asm__ volatile("lgdt %0\n\t"
                     "ljmp %1, $1f\n"
                     "1:\n\t"
                     "movl %2, %%ds\n\t"
                     "movl %2, %%es\n\t"
                     "movl %2, %%fs\n\t"
                     "movl %2, %%gs\n\t"
                     "movl %2, %%ss"
                     :
                     : "m"(gdtr), "i"(KERNEL_CODE), "r"(KERNEL_DATA)
                     : "memory");
}

void segments_init(void)
{
    gdt[TASK_STATE / 8] = task_descriptor((uint32_t)&task_state, sizeof task_state - 1);
    load_gdt();
    __asm__ volatile("ltr %w0" : : "r"(TASK_STATE));
}

void set_kernel_stack(uint32_t esp)
{
    task_state.esp0 = esp;
}
