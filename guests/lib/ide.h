/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first drive of a PIIX IDE controller: just enough to test and to measure it. Commands are given by ide_command and waited
 * for by polling, with the drive's interrupt off, or on and IRQ 14 left to the caller.
 */
#ifndef IDE_H
#define IDE_H

#include <stdbool.h>
#include <stdint.h>

enum { SECTOR_BYTES = 512 };

/* Registers of the command block. */
enum {
    IDE_DATA = 0x1F0,
    IDE_ERROR = 0x1F1, /* read; features if written */
    IDE_COUNT = 0x1F2,
    IDE_LBA_LOW = 0x1F3,
    IDE_LBA_MID = 0x1F4,
    IDE_LBA_HIGH = 0x1F5,
    IDE_DEVICE = 0x1F6,
    IDE_STATUS = 0x1F7, /* read; command if written */
    IDE_CONTROL = 0x3F6, /* written; alternate status if read */
};

enum { STATUS_BSY = 0x80, STATUS_DRDY = 0x40, STATUS_DF = 0x20, STATUS_DRQ = 0x08, STATUS_ERR = 0x01 };
enum { ERROR_UNC = 0x40, ERROR_IDNF = 0x10, ERROR_ABRT = 0x04 };
enum { CONTROL_HOB = 0x80, CONTROL_RESET = 0x04, CONTROL_NO_INTERRUPT = 0x02 };
enum { DEVICE_LBA = 0xE0, DEVICE_CHS = 0xA0, DEVICE_SECOND = 0x10 };

enum {
    READ_SECTORS = 0x20,
    READ_SECTORS_EXT = 0x24,
    READ_DMA_EXT = 0x25,
    READ_MULTIPLE_EXT = 0x29,
    WRITE_SECTORS = 0x30,
    WRITE_SECTORS_EXT = 0x34,
    WRITE_DMA_EXT = 0x35,
    WRITE_MULTIPLE_EXT = 0x39,
    EXECUTE_DIAGNOSTIC = 0x90,
    INITIALIZE_PARAMETERS = 0x91,
    READ_MULTIPLE = 0xC4,
    WRITE_MULTIPLE = 0xC5,
    SET_MULTIPLE = 0xC6,
    READ_DMA = 0xC8,
    WRITE_DMA = 0xCA,
    FLUSH_CACHE = 0xE7,
    FLUSH_CACHE_EXT = 0xEA,
    IDENTIFY = 0xEC,
    SET_FEATURES = 0xEF,
};

/* The bus master's registers of the first channel, from its base on, and its descriptors. */
enum { MASTER_COMMAND = 0, MASTER_STATUS = 2, MASTER_TABLE = 4 };
enum { MASTER_START = 0x01, MASTER_TO_MEMORY = 0x08 };
enum { MASTER_ACTIVE = 0x01, MASTER_ERROR = 0x02, MASTER_INTERRUPT = 0x04 };
#define DESCRIPTOR_LAST 0x80000000u
enum { DESCRIPTOR_BYTES_MAX = 0x10000 };

struct dma_descriptor {
    uint32_t address;
    uint32_t bytes; /* 0: 64 KiB */
};

/* A function's register in PCI configuration space, bus 0. */
uint32_t pci_read(unsigned device, unsigned function, unsigned offset);
void pci_write(unsigned device, unsigned function, unsigned offset, uint32_t value);

/* Base of the bus master's ports, which are placed if nobody has, with mastering allowed; 0: there is no such controller. */
uint16_t ide_master(void);

/* Waits for BSY to go; false if it does not. The interrupt, if any, is taken back. */
bool ide_wait(void);
/* Registers for COUNT sectors at LBA (48 bits and 16 bits for an EXT command), then the command. */
void ide_command(unsigned command, uint64_t lba, unsigned count);
static inline bool ide_is_extended(unsigned command)
{
    return command == READ_SECTORS_EXT || command == READ_DMA_EXT || command == READ_MULTIPLE_EXT || command == WRITE_SECTORS_EXT ||
           command == WRITE_DMA_EXT || command == WRITE_MULTIPLE_EXT || command == FLUSH_CACHE_EXT;
}

/* Starts the bus master, whose table must lie below 4 GiB. */
void master_start(uint16_t master, const struct dma_descriptor *table, bool to_memory);
void master_stop(uint16_t master);

#endif
