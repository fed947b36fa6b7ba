/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BIOS services for a boot sector. An INT in real mode comes to `bios_service` in flat protected mode with interrupts off (see
 * bios.S), which changes the caller's registers in place.
 */
#ifndef FIRMWARE_BIOS_H
#define FIRMWARE_BIOS_H

#include "fw_cfg.h"
#include "io.h"
#include "layout.h"

#define FLAG_CARRY 0x0001
#define FLAG_ZERO 0x0040

union bios_register {
    u32 e;
    u16 x;
    struct {
        u8 l, h;
    };
};

/* The caller's registers, on the caller's stack: as pushed by bios.S and, from `ip` on, by the processor. */
struct registers {
    u32 edi, esi, ebp, esp;
    union bios_register b, d, c, a;
    u16 es, ds;
    u16 waits;   /* how often this call has been answered with SERVICE_WAIT */
    u16 service; /* the vector */
    u16 ip, cs, flags;
} __attribute__((packed));

enum outcome {
    SERVICE_DONE,
    SERVICE_WAIT, /* sleep until an interrupt, then call the service again */
};

/* The BIOS data area (IBM PC AT Technical Reference, "BIOS data areas"). */
struct bios_data {
    u16 com_ports[4];
    u16 lpt_ports[3];
    u16 ebda_segment;
    u16 equipment;
    u8 unused12;
    u16 memory_kib;
    u8 unused15[2];
    u8 shift_flags[2];
    u8 keypad;
    u16 key_head, key_tail; /* offsets from BIOS_DATA of the oldest key and of where the next goes */
    u16 keys[16];
    u8 unused3e[3];
    u8 floppy_status;
    u8 unused42[7];
    u8 video_mode;
    u16 columns;
    u16 page_bytes;
    u16 page_offset;
    struct {
        u8 column, row;
    } cursor[8];
    u16 cursor_shape;
    u8 page;
    u16 crtc_port;
    u8 unused65[7];
    u32 ticks; /* since midnight, 18.2 a second */
    u8 midnight;
    u8 unused71[3];
    u8 disk_status;
    u8 disk_count;
    u8 unused76[2];
    u8 lpt_timeouts[4];
    u8 com_timeouts[4];
    u16 key_buffer_start, key_buffer_end;
    u8 last_row;
    u16 character_height;
} __attribute__((packed));

_Static_assert(__builtin_offsetof(struct bios_data, video_mode) == 0x49, "layout fixed by the PC");
_Static_assert(__builtin_offsetof(struct bios_data, ticks) == 0x6c, "layout fixed by the PC");
_Static_assert(__builtin_offsetof(struct bios_data, character_height) == 0x85, "layout fixed by the PC");

/* The extended BIOS data area: what the services know of the machine. */
struct extended_data {
    u8 kib; /* of this area */
    u8 drive; /* that was booted from */
    u8 floppy_type; /* as INT 13h AH=08h reports it, 0 for a hard disk */
    u8 heads;
    u16 cylinders;
    u16 sectors_per_track;
    u32 sectors; /* of the image; the last may be padded with zeros */
    u32 ram;     /* where it ends */
    u16 disk_key;
} __attribute__((packed));

/* Never constant addresses to the optimizer, for which an object near 0 does not exist. */
static inline void *at_address(u32 address)
{
    __asm__("" : "+r"(address));
    return (void *)address;
}

static inline struct bios_data *bios_data(void)
{
    return at_address(BIOS_DATA);
}

static inline struct extended_data *extended_data(void)
{
    return at_address(EBDA);
}

static inline void *real_address(u16 segment, u16 offset)
{
    return at_address(((u32)segment << 4) + offset);
}

static inline void set_flag(struct registers *regs, u16 flag, int is_on)
{
    regs->flags = (u16)(is_on ? regs->flags | flag : regs->flags & ~flag);
}

/* Fills the BIOS data area, for kernels and boot sectors alike. */
void bios_data_fill(void);

/* Boots from the image; does not return. */
_Noreturn void boot_from_disk(struct fw_cfg_file image);
_Noreturn void boot_first_sector(void);

void disk_attach(struct fw_cfg_file image);
int disk_read(u32 sector, u32 count, void *destination); /* 0 if there are no such sectors */
void video_describe(struct bios_data *data);
void video_clear(void);
u32 time_ticks(void); /* of the clock, since midnight */
void time_start(void);
void serial_start(void);

enum outcome video_service(struct registers *regs);
enum outcome disk_service(struct registers *regs);
enum outcome serial_service(struct registers *regs);
enum outcome system_service(struct registers *regs);
enum outcome keyboard_service(struct registers *regs);
enum outcome printer_service(struct registers *regs);
enum outcome time_service(struct registers *regs);

#endif
