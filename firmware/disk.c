/* SPDX-License-Identifier: GPL-2.0-or-later */
/* INT 13h over the image in fw_cfg. It is read-only: writes are refused as on a protected disk. */
#include "bios.h"

#define SECTOR_BYTES 512
#define HARD_DISK 0x80
#define HARD_DISK_SECTORS_PER_TRACK 63
#define MAX_CYLINDERS 1024
#define MAX_HEADS 255

#define STATUS_OK 0x00
#define STATUS_INVALID 0x01 /* command or parameter */
#define STATUS_WRITE_PROTECTED 0x03
#define STATUS_NOT_FOUND 0x04

#define EXTENSIONS_QUESTION 0x55aa
#define EXTENSIONS_ANSWER 0xaa55
#define EXTENSIONS_VERSION 0x21    /* EDD 1.1 */
#define EXTENSIONS_PACKET_ACCESS 1 /* 42h to 44h, 47h, 48h */
#define PACKET_BYTES 16
#define PARAMETERS_BYTES 26
#define PARAMETERS_CHS_VALID 2

struct floppy_format {
    u32 sectors;
    u8 cylinders, heads, sectors_per_track;
    u8 type;
};

/* A disk address packet (Enhanced Disk Drive specification 1.1). */
struct packet {
    u8 bytes;
    u8 reserved1;
    u16 sectors;
    u16 offset, segment;
    u32 first, first_high;
} __attribute__((packed));

struct parameters {
    u16 bytes;
    u16 flags;
    u32 cylinders, heads, sectors_per_track;
    u32 sectors, sectors_high;
    u16 sector_bytes;
} __attribute__((packed));

_Static_assert(sizeof(struct packet) == PACKET_BYTES && sizeof(struct parameters) == PARAMETERS_BYTES, "layouts of EDD");

static const struct floppy_format *floppy_format(u32 sectors)
{
    static const struct floppy_format formats[] = {
        {720, 40, 2, 9, 1}, {2400, 80, 2, 15, 2}, {1440, 80, 2, 9, 3}, {2880, 80, 2, 18, 4}, {5760, 80, 2, 36, 5},
    };

    for (u32 i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].sectors == sectors)
            return &formats[i];
    return 0;
}

/* 16 heads, doubled until the cylinders fit: the way of BIOSes for disks up to 8 GiB. The last cylinder may be partial. */
static void choose_hard_disk_geometry(struct extended_data *disk)
{
    u32 heads = 16, cylinders;

    while (heads < MAX_HEADS && disk->sectors > MAX_CYLINDERS * heads * HARD_DISK_SECTORS_PER_TRACK)
        heads = heads == 128 ? MAX_HEADS : 2 * heads;
    cylinders = (disk->sectors + heads * HARD_DISK_SECTORS_PER_TRACK - 1) / (heads * HARD_DISK_SECTORS_PER_TRACK);
    disk->drive = HARD_DISK;
    disk->floppy_type = 0;
    disk->heads = (u8)heads;
    disk->cylinders = (u16)(cylinders > MAX_CYLINDERS ? MAX_CYLINDERS : cylinders);
    disk->sectors_per_track = HARD_DISK_SECTORS_PER_TRACK;
}

void disk_attach(struct fw_cfg_file image)
{
    struct extended_data *disk = extended_data();

    disk->disk_key = image.key;
    disk->sectors = image.size / SECTOR_BYTES + (image.size % SECTOR_BYTES != 0);
    const struct floppy_format *format = floppy_format(disk->sectors);
    if (!format) {
        choose_hard_disk_geometry(disk);
        return;
    }
    disk->drive = 0;
    disk->floppy_type = format->type;
    disk->heads = format->heads;
    disk->cylinders = format->cylinders;
    disk->sectors_per_track = format->sectors_per_track;
}

static int has_sectors(u32 first, u32 count)
{
    u32 sectors = extended_data()->sectors;

    return first < sectors && count <= sectors - first;
}

int disk_read(u32 sector, u32 count, void *destination)
{
    return has_sectors(sector, count) &&
           fw_cfg_read_at(extended_data()->disk_key, sector * SECTOR_BYTES, destination, count * SECTOR_BYTES);
}

/* AH=02h and 04h, which reads nothing. */
static u8 access_by_chs(struct registers *regs, int is_read)
{
    const struct extended_data *disk = extended_data();
    u32 cylinder = regs->c.h | (u32)(regs->c.l & 0xc0) << 2, sector = regs->c.l & 0x3f;

    if (!regs->a.l || !sector || sector > disk->sectors_per_track || regs->d.h >= disk->heads ||
        cylinder >= disk->cylinders)
        return STATUS_INVALID;
    u32 first = (cylinder * disk->heads + regs->d.h) * disk->sectors_per_track + sector - 1;
    if (!has_sectors(first, regs->a.l))
        return STATUS_NOT_FOUND;
    return !is_read || disk_read(first, regs->a.l, real_address(regs->es, regs->b.x)) ? STATUS_OK : STATUS_NOT_FOUND;
}

/* AH=42h, and 44h and 47h, which read nothing. */
static u8 access_by_packet(struct registers *regs, int is_read)
{
    struct packet *packet = real_address(regs->ds, (u16)regs->esi);

    if (packet->bytes < PACKET_BYTES)
        return STATUS_INVALID;
    if (packet->first_high || !has_sectors(packet->first, packet->sectors)) {
        packet->sectors = 0;
        return STATUS_INVALID;
    }
    if (is_read && !disk_read(packet->first, packet->sectors, real_address(packet->segment, packet->offset)))
        return STATUS_NOT_FOUND;
    return STATUS_OK;
}

static u8 report_geometry(struct registers *regs)
{
    const struct extended_data *disk = extended_data();
    u32 last = disk->cylinders - 1u;

    regs->a.l = 0;
    regs->c.h = (u8)last;
    regs->c.l = (u8)((last >> 2 & 0xc0) | disk->sectors_per_track);
    regs->d.h = (u8)(disk->heads - 1);
    regs->d.l = 1; /* drives of this kind */
    if (disk->floppy_type) {
        u32 table = *(u32 *)at_address(4 * 0x1e);
        regs->b.x = disk->floppy_type;
        regs->es = (u16)(table >> 16);
        regs->edi = (regs->edi & 0xffff0000) | (u16)table;
    }
    return STATUS_OK;
}

static u8 report_parameters(struct registers *regs)
{
    const struct extended_data *disk = extended_data();
    struct parameters *parameters = real_address(regs->ds, (u16)regs->esi);

    if (parameters->bytes < PARAMETERS_BYTES)
        return STATUS_INVALID;
    *parameters = (struct parameters){
        .bytes = PARAMETERS_BYTES,
        .flags = PARAMETERS_CHS_VALID,
        .cylinders = disk->cylinders,
        .heads = disk->heads,
        .sectors_per_track = disk->sectors_per_track,
        .sectors = disk->sectors,
        .sector_bytes = SECTOR_BYTES,
    };
    return STATUS_OK;
}

static u8 check_extensions(struct registers *regs)
{
    if (regs->b.x != EXTENSIONS_QUESTION)
        return STATUS_INVALID;
    regs->b.x = EXTENSIONS_ANSWER;
    regs->c.x = EXTENSIONS_PACKET_ACCESS;
    return STATUS_OK;
}

static u8 serve_extension(struct registers *regs)
{
    if (extended_data()->floppy_type)
        return STATUS_INVALID;
    switch (regs->a.h) {
    case 0x41:
        return check_extensions(regs);
    case 0x42:
        return access_by_packet(regs, 1);
    case 0x43:
        return STATUS_WRITE_PROTECTED;
    case 0x44:
    case 0x47:
        return access_by_packet(regs, 0);
    case 0x48:
        return report_parameters(regs);
    default:
        return STATUS_INVALID;
    }
}

static u8 serve(struct registers *regs)
{
    switch (regs->a.h) {
    case 0x00: /* reset */
    case 0x0c: /* seek */
    case 0x0d:
    case 0x10: /* ready? */
    case 0x11: /* recalibrate */
        return STATUS_OK;
    case 0x02:
        return access_by_chs(regs, 1);
    case 0x03:
        return STATUS_WRITE_PROTECTED;
    case 0x04:
        return access_by_chs(regs, 0);
    case 0x08:
        return report_geometry(regs);
    default:
        return serve_extension(regs);
    }
}

/* AH=15h: the kind of drive is where other calls have their status. */
static void report_kind(struct registers *regs)
{
    const struct extended_data *disk = extended_data();

    set_flag(regs, FLAG_CARRY, 0);
    regs->a.h = 0; /* no such drive */
    if (regs->d.l != disk->drive)
        return;
    regs->a.h = disk->floppy_type ? 1 : 3;
    if (!disk->floppy_type) {
        regs->c.x = (u16)(disk->sectors >> 16);
        regs->d.x = (u16)disk->sectors;
    }
}

enum outcome disk_service(struct registers *regs)
{
    u8 *last_status = regs->d.l & HARD_DISK ? &bios_data()->disk_status : &bios_data()->floppy_status;
    u8 function = regs->a.h, status;

    if (function == 0x15) {
        report_kind(regs);
        return SERVICE_DONE;
    }
    if (function == 0x01)
        status = *last_status;
    else
        *last_status = status = regs->d.l == extended_data()->drive ? serve(regs) : STATUS_INVALID;
    if (status && (function == 0x02 || function == 0x03 || function == 0x04))
        regs->a.l = 0; /* sectors carried out */
    regs->a.h = function == 0x41 && !status ? EXTENSIONS_VERSION : status;
    set_flag(regs, FLAG_CARRY, status != STATUS_OK);
    return SERVICE_DONE;
}
