/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Four drives on the two channels of a PIIX IDE controller: drive n has n + 1 MiB. */
#include "../lib/ide.h"
#include "../lib/platform.h"
#include "../lib/ports.h"
#include "lib/memory.h"
#include "lib/report.h"

enum { DRIVES = 4, SECTORS_A_MIB = 2048, PLACE = 100, OTHER_PLACE = 200 };
enum { SECOND_CHANNEL = 0x80, SECOND_MASTER = 8, PATIENCE = 10000000 };
enum { PIC_INITIALIZE = 0x11, PIC_8086 = 1, PIC_READ_REQUESTS = 0x0A, PIC_VECTOR = 0x28, IDE_IRQ_ON_SLAVE = 6 };

static uint16_t masters;

/* A register of the first channel, on the drive's. */
static uint16_t port(unsigned drive, uint16_t on_first)
{
    return on_first - (drive / 2 ? SECOND_CHANNEL : 0);
}

static uint16_t master_of(unsigned drive)
{
    return masters + (drive / 2 ? SECOND_MASTER : 0);
}

static void await(unsigned drive, uint8_t wanted)
{
    unsigned turn = 0;

    while ((inb(port(drive, IDE_CONTROL)) & (STATUS_BSY | wanted)) != wanted && turn < PATIENCE)
        turn++;
    expect_true("the drive's answer in time", turn < PATIENCE);
}

static void select(unsigned drive)
{
    outb(port(drive, IDE_DEVICE), (uint8_t)(DEVICE_LBA | (drive % 2 ? DEVICE_SECOND : 0)));
    await(drive, STATUS_DRDY);
}

static void command(unsigned drive, unsigned code, unsigned lba)
{
    select(drive);
    outb(port(drive, IDE_COUNT), 1);
    outb(port(drive, IDE_LBA_LOW), (uint8_t)lba);
    outb(port(drive, IDE_LBA_MID), (uint8_t)(lba >> 8));
    outb(port(drive, IDE_LBA_HIGH), (uint8_t)(lba >> 16));
    outb(port(drive, IDE_STATUS), (uint8_t)code);
}

static void finish(unsigned drive)
{
    await(drive, STATUS_DRDY);
    expect("errors", 0, inb(port(drive, IDE_STATUS)) & (STATUS_DF | STATUS_DRQ | STATUS_ERR));
}

static void read_sector(unsigned drive, unsigned code, unsigned lba, uint16_t *words)
{
    command(drive, code, lba);
    await(drive, STATUS_DRQ);
    for (unsigned i = 0; i < SECTOR_BYTES / 2; i++)
        words[i] = inw(port(drive, IDE_DATA));
    finish(drive);
}

static void write_sector(unsigned drive, unsigned lba, uint16_t value)
{
    command(drive, WRITE_SECTORS, lba);
    await(drive, STATUS_DRQ);
    for (unsigned i = 0; i < SECTOR_BYTES / 2; i++)
        outw(port(drive, IDE_DATA), (uint16_t)(value + i));
    finish(drive);
}

static void expect_sector(const uint16_t *words, uint16_t value)
{
    for (unsigned i = 0; i < SECTOR_BYTES / 2; i++)
        expect("a word of the sector", (uint16_t)(value + i), words[i]);
}

/* ---- cases ---- */

static void check_identify(word unused)
{
    uint16_t *words = (uint16_t *)frame_new();
    uint16_t seen[DRIVES];

    (void)unused;
    for (unsigned drive = 0; drive < DRIVES; drive++) {
        read_sector(drive, IDENTIFY, 0, words);
        expect("sectors", (drive + 1) * SECTORS_A_MIB, words[60] | (uint32_t)words[61] << 16);
        seen[drive] = words[12] ^ words[13]; /* of the serial number, the digits */
        for (unsigned other = 0; other < drive; other++)
            expect_true("a serial number of its own", seen[drive] != seen[other]);
    }
}

static void check_each_has_its_own_sectors(word unused)
{
    uint16_t *words = (uint16_t *)frame_new();

    (void)unused;
    for (unsigned drive = 0; drive < DRIVES; drive++)
        write_sector(drive, PLACE, (uint16_t)(0x1000 * (drive + 1)));
    for (unsigned drive = 0; drive < DRIVES; drive++) {
        read_sector(drive, READ_SECTORS, PLACE, words);
        expect_sector(words, (uint16_t)(0x1000 * (drive + 1)));
    }
}

static void check_dma(word unused)
{
    struct dma_descriptor *table = (struct dma_descriptor *)frame_new();
    uint16_t *words = (uint16_t *)frame_new();

    (void)unused;
    for (unsigned drive = 0; drive < DRIVES; drive++) {
        write_sector(drive, OTHER_PLACE, (uint16_t)(0x1100 * (drive + 1)));
        *table = (struct dma_descriptor){(uint32_t)(word)words, SECTOR_BYTES | DESCRIPTOR_LAST};
        command(drive, READ_DMA, OTHER_PLACE);
        master_start(master_of(drive), table, true);
        for (unsigned turn = 0; turn < PATIENCE && !(inb(master_of(drive) + MASTER_STATUS) & MASTER_INTERRUPT); turn++)
            continue;
        expect("the master's status", MASTER_INTERRUPT, inb(master_of(drive) + MASTER_STATUS) & (MASTER_INTERRUPT | MASTER_ACTIVE));
        finish(drive);
        master_stop(master_of(drive));
        expect_sector(words, (uint16_t)(0x1100 * (drive + 1)));
    }
}

static void check_both_channels_at_once(word unused)
{
    uint16_t *words = (uint16_t *)frame_new();

    (void)unused;
    write_sector(0, PLACE, 0x2000);
    write_sector(3, PLACE, 0x3000);
    command(0, READ_SECTORS, PLACE);
    command(3, READ_SECTORS, PLACE);
    for (unsigned drive = 0; drive < DRIVES; drive += 3) {
        await(drive, STATUS_DRQ);
        for (unsigned i = 0; i < SECTOR_BYTES / 2; i++)
            words[i] = inw(port(drive, IDE_DATA));
        finish(drive);
        expect_sector(words, drive ? 0x3000 : 0x2000);
    }
}

static bool is_requested(unsigned channel)
{
    outb(PIC_SLAVE_COMMAND_PORT, PIC_READ_REQUESTS);
    return inb(PIC_SLAVE_COMMAND_PORT) >> (IDE_IRQ_ON_SLAVE + channel) & 1;
}

static void start_controller(void)
{
    outb(PIC_SLAVE_COMMAND_PORT, PIC_INITIALIZE);
    outb(PIC_SLAVE_DATA_PORT, PIC_VECTOR);
    outb(PIC_SLAVE_DATA_PORT, PIC_CASCADE_IRQ);
    outb(PIC_SLAVE_DATA_PORT, PIC_8086);
    outb(PIC_SLAVE_DATA_PORT, 0xFF);
}

static void check_interrupts(word unused)
{
    (void)unused;
    start_controller();
    for (unsigned drive = 0; drive < DRIVES; drive++) {
        outb(port(drive, IDE_CONTROL), 0);
        command(drive, SET_FEATURES, 0); /* whatever comes of it */
        await(drive, STATUS_DRDY);
        expect_true("the channel's interrupt", is_requested(drive / 2));
        expect_true("the other channel's", !is_requested(1 - drive / 2));
        inb(port(drive, IDE_STATUS));
        start_controller(); /* a request stays, else */
    }
}

static void check_settings_are_apart(word unused)
{
    uint16_t *words = (uint16_t *)frame_new();

    (void)unused;
    for (unsigned drive = 0; drive < DRIVES; drive++) {
        select(drive);
        outb(port(drive, IDE_COUNT), (uint8_t)(1 << (drive + 1)));
        outb(port(drive, IDE_STATUS), SET_MULTIPLE);
        finish(drive);
    }
    for (unsigned drive = 0; drive < DRIVES; drive++) {
        read_sector(drive, IDENTIFY, 0, words);
        expect("sectors of a block", 0x100u | 1u << (drive + 1), words[59]);
    }
}

static const struct test_case cases[] = {
    {"disks.identify", check_identify, 0},
    {"disks.each-has-its-own-sectors", check_each_has_its_own_sectors, 0},
    {"disks.dma", check_dma, 0},
    {"disks.both-channels-at-once", check_both_channels_at_once, 0},
    {"disks.interrupts", check_interrupts, 0},
    {"disks.settings-are-apart", check_settings_are_apart, 0},
};

_Noreturn void suite_main(void)
{
    masters = ide_master();
    RUN_CASES(cases);
}
