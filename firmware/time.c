/* SPDX-License-Identifier: GPL-2.0-or-later */
/* INT 1Ah: the tick count and the real-time clock. */
#include "bios.h"

#define PORT_CMOS_INDEX 0x70
#define PORT_CMOS_DATA 0x71
#define CMOS_SECONDS 0x00
#define CMOS_MINUTES 0x02
#define CMOS_HOURS 0x04
#define CMOS_DAY 0x07
#define CMOS_MONTH 0x08
#define CMOS_YEAR 0x09
#define CMOS_STATUS_A 0x0a
#define CMOS_STATUS_B 0x0b
#define CMOS_CENTURY 0x32
#define STATUS_A_UPDATING 0x80
#define STATUS_B_SET 0x80
#define PORT_PIT_CHANNEL0 0x40
#define PORT_PIT_CONTROL 0x43
#define PIT_RATE_GENERATOR 0x34 /* channel 0, both bytes, mode 2 */
#define PIT_HERTZ 1193182
#define PIT_DIVISOR_SHIFT 16 /* a tick is 65536 of its cycles */

static u8 cmos(u8 index)
{
    out8(PORT_CMOS_INDEX, index);
    return in8(PORT_CMOS_DATA);
}

static void set_cmos(u8 index, u8 value)
{
    out8(PORT_CMOS_INDEX, index);
    out8(PORT_CMOS_DATA, value);
}

/* The time registers may only be read between two updates. */
static void await_update_end(void)
{
    while (cmos(CMOS_STATUS_A) & STATUS_A_UPDATING)
        continue;
}

static u32 decimal(u8 bcd)
{
    return 10u * (bcd >> 4) + (bcd & 15);
}

u32 time_ticks(void)
{
    await_update_end();
    u32 seconds = (decimal(cmos(CMOS_HOURS)) * 60 + decimal(cmos(CMOS_MINUTES))) * 60 + decimal(cmos(CMOS_SECONDS));

    return (u32)((u64)seconds * PIT_HERTZ >> PIT_DIVISOR_SHIFT);
}

/* Starts IRQ 0, which counts the ticks. */
void time_start(void)
{
    out8(PORT_PIT_CONTROL, PIT_RATE_GENERATOR);
    out8(PORT_PIT_CHANNEL0, 0); /* 0 stands for 65536 */
    out8(PORT_PIT_CHANNEL0, 0);
}

static void set_clock(const u8 (*values)[2], u32 count)
{
    u8 control = cmos(CMOS_STATUS_B);

    set_cmos(CMOS_STATUS_B, control | STATUS_B_SET);
    for (u32 i = 0; i < count; i++)
        set_cmos(values[i][0], values[i][1]);
    set_cmos(CMOS_STATUS_B, control & (u8)~STATUS_B_SET);
}

static void give_ticks(struct registers *regs)
{
    regs->c.x = (u16)(bios_data()->ticks >> 16);
    regs->d.x = (u16)bios_data()->ticks;
    regs->a.l = bios_data()->midnight;
    bios_data()->midnight = 0;
}

static void give_time(struct registers *regs)
{
    await_update_end();
    regs->c.h = cmos(CMOS_HOURS);
    regs->c.l = cmos(CMOS_MINUTES);
    regs->d.h = cmos(CMOS_SECONDS);
    regs->d.l = cmos(CMOS_STATUS_B) & 1;
}

static void give_date(struct registers *regs)
{
    await_update_end();
    regs->c.h = cmos(CMOS_CENTURY);
    regs->c.l = cmos(CMOS_YEAR);
    regs->d.h = cmos(CMOS_MONTH);
    regs->d.l = cmos(CMOS_DAY);
}

static int serve(struct registers *regs)
{
    switch (regs->a.h) {
    case 0x00:
        give_ticks(regs);
        return 1;
    case 0x01:
        bios_data()->ticks = (u32)regs->c.x << 16 | regs->d.x;
        bios_data()->midnight = 0;
        return 1;
    case 0x02:
        give_time(regs);
        return 1;
    case 0x03:
        set_clock((const u8[][2]){{CMOS_HOURS, regs->c.h}, {CMOS_MINUTES, regs->c.l}, {CMOS_SECONDS, regs->d.h}}, 3);
        return 1;
    case 0x04:
        give_date(regs);
        return 1;
    case 0x05:
        set_clock((const u8[][2]){{CMOS_CENTURY, regs->c.h},
                                  {CMOS_YEAR, regs->c.l},
                                  {CMOS_MONTH, regs->d.h},
                                  {CMOS_DAY, regs->d.l}}, 4);
        return 1;
    default:
        return 0;
    }
}

enum outcome time_service(struct registers *regs)
{
    int is_served = serve(regs);

    if (is_served)
        regs->a.h = 0;
    set_flag(regs, FLAG_CARRY, !is_served);
    return SERVICE_DONE;
}
