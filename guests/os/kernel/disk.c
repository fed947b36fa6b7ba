/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk: the master of the primary IDE channel, by bus-master DMA where a PIIX or its like is found, else by programmed I/O.
 * Registers and commands are those of ATA/ATAPI-4 (sections 7 and 8), the bus master's those of the PIIX3 (section 2.7).
 *
 * 1. One request is under way at a time: `lock` is held from its first register to its last.
 * 2. While it waits for the interrupt, others run; before there are processes, it looks at the status.
 */
#include "disk.h"

#include "../include/errors.h"
#include "../../lib/string.h"
#include "io.h"
#include "kernel.h"
#include "pci.h"
#include "schedule.h"
#include "traps.h"

enum { DATA = 0x1F0, SECTORS = 0x1F2, LBA_LOW = 0x1F3, LBA_MIDDLE = 0x1F4, LBA_HIGH = 0x1F5, DRIVE = 0x1F6, COMMAND = 0x1F7, CONTROL = 0x3F6 };
enum { STATUS_ERROR = 0x01, STATUS_DATA = 0x08, STATUS_FAULT = 0x20, STATUS_READY = 0x40, STATUS_BUSY = 0x80 };
enum { DRIVE_LBA = 0xE0, NO_INTERRUPT = 2, DISK_IRQ = 14 };
enum { READ_SECTORS = 0x20, WRITE_SECTORS = 0x30, READ_DMA = 0xC8, WRITE_DMA = 0xCA, FLUSH_CACHE = 0xE7, IDENTIFY = 0xEC };
enum { IDENTIFY_WORDS = 256, WORD_CAPABILITIES = 49, CAN_DMA = 1 << 8, WORD_SECTORS = 60 };
enum { MASTER_COMMAND = 0, MASTER_STATUS = 2, MASTER_TABLE = 4, MASTER_START = 1, MASTER_TO_MEMORY = 8 };
enum { MASTER_ERROR = 2, MASTER_INTERRUPT = 4, LAST_ENTRY = 0x8000, MASTER_PORTS = 0xC000, CLASS_IDE = 0x0101 };
enum { BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES, TRIES = 2, FLOATING = 0xFF, PARTITIONS_AT = 446, PARTITIONS = 4 };
enum { PATIENCE = 10 * 1000 * 1000 }; /* looks at the status before a drive counts as dead */

struct physical_region {
    uint32_t address;
    uint16_t bytes; /* 0: 64 KiB */
    uint16_t flags;
};

struct partition {
    uint8_t status, first_chs[3], type, last_chs[3];
    uint32_t first, sectors;
};

static struct physical_region table[TRANSFER_BLOCKS] __attribute__((aligned(4096)));
static uint8_t first_sector[BLOCK_BYTES] __attribute__((aligned(4096)));
static struct lock lock;
static uint32_t sectors;       /* of the disk */
static uint16_t bus_master;    /* its ports, 0: programmed I/O */
static bool has_interrupted;
static uint8_t last_status;    /* of the drive, as the interrupt found it */

static void on_interrupt(void)
{
    last_status = inb(COMMAND); /* which takes the request back */
    has_interrupted = true;
    wake_all(&has_interrupted);
}

/* ---- waiting ---- */

static bool is_idle(void)
{
    return !(inb(COMMAND) & STATUS_BUSY);
}

/* Until the drive is no longer busy: by looking, where it takes a moment or nothing else can be done. */
static bool wait_idle(void)
{
    for (unsigned i = 0; i < PATIENCE; i++)
        if (is_idle())
            return true;
    return false;
}

/* Until the command has ended or wants data. */
static void wait_interrupt(void)
{
    while (can_sleep && !has_interrupted)
        sleep_on(&has_interrupted);
    if (!has_interrupted || last_status & STATUS_BUSY) {
        wait_idle();
        last_status = inb(COMMAND);
    }
    has_interrupted = false;
}

static int status_error(void)
{
    return last_status & (STATUS_ERROR | STATUS_FAULT | STATUS_BUSY) ? -EIO : 0;
}

/* ---- commands ---- */

static bool begin(uint32_t sector, unsigned count, uint8_t command)
{
    has_interrupted = false;
    outb(DRIVE, DRIVE_LBA | (sector >> 24 & 0xF));
    outb(SECTORS, count);
    outb(LBA_LOW, sector);
    outb(LBA_MIDDLE, sector >> 8);
    outb(LBA_HIGH, sector >> 16);
    outb(COMMAND, command);
    return true;
}

static int transfer_by_dma(enum disk_operation operation, uint32_t sector, const paddr pages[], unsigned count)
{
    uint8_t direction = operation == DISK_READ ? MASTER_TO_MEMORY : 0;
    uint8_t master_status;

    for (unsigned i = 0; i < count; i++)
        table[i] = (struct physical_region){pages[i], BLOCK_BYTES, i + 1 == count ? LAST_ENTRY : 0};
    outb(bus_master + MASTER_COMMAND, direction);
    if (!begin(sector, count * BLOCK_SECTORS, operation == DISK_READ ? READ_DMA : WRITE_DMA))
        return -EIO;
    outb(bus_master + MASTER_COMMAND, direction | MASTER_START);
    wait_interrupt();
    outb(bus_master + MASTER_COMMAND, 0);
    master_status = inb(bus_master + MASTER_STATUS);
    outb(bus_master + MASTER_STATUS, master_status | MASTER_ERROR | MASTER_INTERRUPT); /* ones clear them */
    return master_status & MASTER_ERROR ? -EIO : status_error();
}

static int transfer_by_words(enum disk_operation operation, uint32_t sector, const paddr pages[], unsigned count)
{
    if (!begin(sector, count * BLOCK_SECTORS, operation == DISK_READ ? READ_SECTORS : WRITE_SECTORS))
        return -EIO;
    for (unsigned i = 0; i < count * BLOCK_SECTORS; i++) {
        uint8_t *at = (uint8_t *)direct(pages[i / BLOCK_SECTORS]) + i % BLOCK_SECTORS * SECTOR_BYTES;

        if (operation == DISK_READ || i > 0) {
            wait_interrupt();
        } else {
            wait_idle();
            last_status = inb(COMMAND);
        }
        if (status_error() || !(last_status & STATUS_DATA))
            return -EIO;
        if (operation == DISK_READ)
            ins_words(DATA, at, SECTOR_BYTES / 2);
        else
            outs_words(DATA, at, SECTOR_BYTES / 2);
    }
    if (operation == DISK_WRITE)
        wait_interrupt();
    return status_error();
}

int disk_transfer(enum disk_operation operation, uint32_t block, const paddr pages[], unsigned count)
{
    int error = -EIO;

    if (!count || count > TRANSFER_BLOCKS || block >= disk_blocks() || count > disk_blocks() - block)
        return -EIO;
    lock_acquire(&lock);
    for (unsigned i = 0; error && i < TRIES; i++)
        error = (bus_master ? transfer_by_dma : transfer_by_words)(operation, block * BLOCK_SECTORS, pages, count);
    lock_release(&lock);
    if (error)
        kprintf("disk: %s of %u blocks at %u failed\n", operation == DISK_READ ? "read" : "write", count, block);
    return error;
}

int disk_flush(void)
{
    int error = -EIO;

    lock_acquire(&lock);
    if (begin(0, 0, FLUSH_CACHE)) {
        wait_interrupt();
        error = status_error();
    }
    lock_release(&lock);
    return error;
}

/* ---- the start ---- */

static bool identify(uint16_t words[IDENTIFY_WORDS])
{
    if (inb(COMMAND) == FLOATING)
        return false;
    outb(CONTROL, NO_INTERRUPT);
    outb(DRIVE, DRIVE_LBA);
    outb(SECTORS, 0x55);
    if (inb(SECTORS) != 0x55) /* nobody keeps it */
        return false;
    outb(COMMAND, IDENTIFY);
    if (!inb(COMMAND) || !wait_idle())
        return false;
    last_status = inb(COMMAND);
    if (status_error() || !(last_status & STATUS_DATA))
        return false;
    ins_words(DATA, words, IDENTIFY_WORDS);
    outb(CONTROL, 0); /* interrupts from now on */
    return true;
}

static void find_bus_master(void)
{
    struct pci_function at;
    const char *wanted = argument("disk");

    if ((wanted && strcmp(wanted, "pio") == 0) || !pci_find(CLASS_IDE, &at))
        return;
    if (!(pci_read(at, PCI_BAR4) & 0xFFF0))
        pci_write(at, PCI_BAR4, MASTER_PORTS);
    bus_master = pci_read(at, PCI_BAR4) & 0xFFF0;
    pci_write(at, PCI_COMMAND, (pci_read(at, PCI_COMMAND) & 0xFFFF) | PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    outl(bus_master + MASTER_TABLE, physical(table));
    outb(bus_master + MASTER_STATUS, inb(bus_master + MASTER_STATUS) | MASTER_ERROR | MASTER_INTERRUPT);
}

bool disk_init(void)
{
    static uint16_t words[IDENTIFY_WORDS];

    if (!identify(words))
        return false;
    sectors = words[WORD_SECTORS] | (uint32_t)words[WORD_SECTORS + 1] << 16;
    if (words[WORD_CAPABILITIES] & CAN_DMA)
        find_bus_master();
    irq_install(DISK_IRQ, on_interrupt);
    return true;
}

uint32_t disk_blocks(void)
{
    return sectors / BLOCK_SECTORS;
}

bool disk_partition(unsigned type, struct extent *extent)
{
    paddr page = physical(first_sector);
    struct partition entries[PARTITIONS];

    if (disk_transfer(DISK_READ, 0, &page, 1) != 0 || first_sector[510] != 0x55 || first_sector[511] != 0xAA)
        return false;
    memcpy(entries, first_sector + PARTITIONS_AT, sizeof entries);
    for (unsigned i = 0; i < PARTITIONS; i++) {
        extent->first = entries[i].first / BLOCK_SECTORS;
        extent->count = entries[i].sectors / BLOCK_SECTORS;
        if (entries[i].type == type && extent->count && extent->first < disk_blocks() && extent->count <= disk_blocks() - extent->first)
            return true;
    }
    return false;
}
