/* SPDX-License-Identifier: GPL-2.0-or-later */
/* INT 15h: memory, line A20, and what kind of machine this is. */
#include "bios.h"
#include "memory.h"

#define SMAP 0x534d4150
#define E820_BYTES 20
#define KIB 1024
#define MIB 0x100000
#define STATUS_UNSUPPORTED 0x86
#define PORT_SYSTEM_CONTROL_A 0x92
#define FAST_A20 0x02
#define FAST_RESET 0x01
#define MAX_EXTENDED_KIB (63 * KIB) /* what AH=88h says at most; old programs know no more */
#define MAX_MOVE_WORDS 0x8000

/* What AH=C0h points to: an AT with two interrupt controllers, a clock and an EBDA. */
static const u8 system_configuration[] = {8, 0, 0xfc, 0, 0, 0x64, 0, 0, 0, 0};

static int give_memory_region(struct registers *regs)
{
    struct multiboot_region regions[MEMORY_REGIONS];
    u8 *target = real_address(regs->es, (u16)regs->edi);

    if (regs->d.e != SMAP || regs->b.e >= MEMORY_REGIONS || regs->c.e < E820_BYTES)
        return 0;
    describe_regions(regions, extended_data()->ram);
    const u8 *source = (const u8 *)&regions[regs->b.e].start;
    for (u32 i = 0; i < E820_BYTES; i++)
        target[i] = source[i];
    regs->b.e = regs->b.e + 1 < MEMORY_REGIONS ? regs->b.e + 1 : 0;
    regs->c.e = E820_BYTES;
    regs->a.e = SMAP;
    return 1;
}

static int give_memory_sizes(struct registers *regs)
{
    u32 ram = extended_data()->ram;

    regs->c.x = regs->a.x = (u16)(((ram < 16 * MIB ? ram : 16 * MIB) - MIB) / KIB);
    regs->d.x = regs->b.x = (u16)(ram < 16 * MIB ? 0 : (ram - 16 * MIB) / (64 * KIB));
    return 1;
}

static int give_extended_memory(struct registers *regs)
{
    u32 kib = (extended_data()->ram - MIB) / KIB;

    regs->a.x = (u16)(kib > MAX_EXTENDED_KIB ? MAX_EXTENDED_KIB : kib);
    return 1;
}

static int switch_a20(struct registers *regs)
{
    u8 value = in8(PORT_SYSTEM_CONTROL_A) & (u8)~FAST_RESET;

    switch (regs->a.l) {
    case 0:
        out8(PORT_SYSTEM_CONTROL_A, value & (u8)~FAST_A20);
        break;
    case 1:
        out8(PORT_SYSTEM_CONTROL_A, value | FAST_A20);
        break;
    case 2:
        regs->a.l = (value & FAST_A20) != 0;
        break;
    case 3:
        regs->b.x = 2; /* through port 92 */
        break;
    default:
        return 0;
    }
    regs->a.h = 0;
    return 1;
}

/* The base of a segment descriptor. */
static u8 *descriptor_base(const u8 *descriptor)
{
    return at_address(descriptor[2] | (u32)descriptor[3] << 8 | (u32)descriptor[4] << 16 | (u32)descriptor[7] << 24);
}

static int move_block(struct registers *regs)
{
    const u8 *table = real_address(regs->es, (u16)regs->esi);
    const u8 *source = descriptor_base(table + 0x10);
    u8 *target = descriptor_base(table + 0x18);

    if (regs->c.x > MAX_MOVE_WORDS)
        return 0;
    u32 bytes = 2u * regs->c.x;
    __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(bytes) : : "memory");
    regs->a.h = 0;
    set_flag(regs, FLAG_ZERO, 1);
    return 1;
}

static int give_configuration(struct registers *regs)
{
    regs->es = ROM_SEGMENT;
    regs->b.x = (u16)(u32)system_configuration;
    regs->a.h = 0;
    return 1;
}

static int serve(struct registers *regs)
{
    if (regs->a.x == 0xe820)
        return give_memory_region(regs);
    if (regs->a.x == 0xe801)
        return give_memory_sizes(regs);
    switch (regs->a.h) {
    case 0x24:
        return switch_a20(regs);
    case 0x87:
        return move_block(regs);
    case 0x88:
        return give_extended_memory(regs);
    case 0xc0:
        return give_configuration(regs);
    case 0xc1:
        regs->es = bios_data()->ebda_segment;
        return 1;
    default:
        return 0;
    }
}

enum outcome system_service(struct registers *regs)
{
    if (regs->a.h == 0x4f) { /* the key in AL is to be processed as usual */
        set_flag(regs, FLAG_CARRY, 1);
        return SERVICE_DONE;
    }
    int is_served = serve(regs);
    if (!is_served)
        regs->a.h = STATUS_UNSUPPORTED;
    set_flag(regs, FLAG_CARRY, !is_served);
    return SERVICE_DONE;
}
