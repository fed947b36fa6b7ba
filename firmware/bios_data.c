/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The BIOS data area: what programs find there of the machine, whether or not they use the services. */
#include "bios.h"
#include "console.h"

#define PORT_PRINTER 0x378
#define EQUIPMENT_FLOPPY 0x0001
#define EQUIPMENT_FPU 0x0002
#define EQUIPMENT_80_COLUMNS 0x0020
#define EQUIPMENT_ONE_COM 0x0200
#define EQUIPMENT_ONE_PRINTER 0x4000

#define IDE_DEVICE 6 /* registers of a channel, from its first port */
#define IDE_STATUS 7
#define IDE_FIRST_DRIVE 0xa0
#define IDE_SECOND_DRIVE 0xb0
#define IDE_READY 0x40
#define IDE_NOBODY 0xff

static int has_printer(void)
{
    out8(PORT_PRINTER, 0x5a);
    return in8(PORT_PRINTER) == 0x5a;
}

static u8 count_ide_drives(void)
{
    static const u16 channels[] = {0x1f0, 0x170};
    u8 count = 0;

    for (u32 i = 0; i < 4; i++) {
        u16 channel = channels[i / 2];
        out8(channel + IDE_DEVICE, i % 2 ? IDE_SECOND_DRIVE : IDE_FIRST_DRIVE);
        u8 status = in8(channel + IDE_STATUS);
        if (status != IDE_NOBODY && status & IDE_READY)
            count++;
        out8(channel + IDE_DEVICE, IDE_FIRST_DRIVE);
    }
    return count;
}

void bios_data_fill(void)
{
    struct bios_data *data = bios_data();
    const struct extended_data *machine = extended_data();

    for (u32 i = 0; i < LOW_START - BIOS_DATA; i++)
        ((u8 *)data)[i] = 0;
    data->com_ports[0] = PORT_COM1;
    data->ebda_segment = EBDA >> 4;
    data->memory_kib = EBDA / 1024;
    data->equipment = EQUIPMENT_FPU | EQUIPMENT_80_COLUMNS | EQUIPMENT_ONE_COM;
    data->disk_count = count_ide_drives();
    if (machine->floppy_type)
        data->equipment |= EQUIPMENT_FLOPPY;
    else if (machine->drive && !data->disk_count)
        data->disk_count = 1;
    if (has_printer()) {
        data->lpt_ports[0] = PORT_PRINTER;
        data->equipment |= EQUIPMENT_ONE_PRINTER;
    }
    data->key_buffer_start = data->key_head = data->key_tail = (u16)__builtin_offsetof(struct bios_data, keys);
    data->key_buffer_end = (u16)(data->key_buffer_start + sizeof data->keys);
    data->lpt_timeouts[0] = 20;
    data->com_timeouts[0] = 1;
    data->ticks = time_ticks();
    video_describe(data);
}
