/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ide.h"

#include "ports.h"

enum { PCI_ADDRESS = 0xCF8, PCI_DATA = 0xCFC };
#define PCI_ENABLE 0x80000000u
#define PIIX3_IDE 0x70108086u
enum { PCI_DEVICES = 32, PCI_FUNCTIONS = 8 };
enum { PCI_ID = 0x00, PCI_COMMAND = 0x04, PCI_BAR4 = 0x20 };
enum { PCI_COMMAND_IO = 1, PCI_COMMAND_MASTER = 4 };
enum { MASTER_BASE = 0xC000 }; /* where nothing else is */
enum { PATIENCE = 10000000 };

static void pci_select(unsigned device, unsigned function, unsigned offset)
{
    outl(PCI_ADDRESS, PCI_ENABLE | device << 11 | function << 8 | offset);
}

uint32_t pci_read(unsigned device, unsigned function, unsigned offset)
{
    pci_select(device, function, offset);
    return inl(PCI_DATA);
}

void pci_write(unsigned device, unsigned function, unsigned offset, uint32_t value)
{
    pci_select(device, function, offset);
    outl(PCI_DATA, value);
}

static uint16_t enable_master(unsigned device, unsigned function)
{
    if ((pci_read(device, function, PCI_BAR4) & ~3u) == 0)
        pci_write(device, function, PCI_BAR4, MASTER_BASE);
    pci_write(device, function, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    return (uint16_t)(pci_read(device, function, PCI_BAR4) & ~3u);
}

uint16_t ide_master(void)
{
    for (unsigned device = 0; device < PCI_DEVICES; device++)
        for (unsigned function = 0; function < PCI_FUNCTIONS; function++)
            if (pci_read(device, function, PCI_ID) == PIIX3_IDE)
                return enable_master(device, function);
    return 0;
}

bool ide_wait(void)
{
    for (unsigned turn = 0; turn < PATIENCE; turn++)
        if (!(inb(IDE_CONTROL) & STATUS_BSY)) {
            inb(IDE_STATUS);
            return true;
        }
    return false;
}

void ide_command(unsigned command, uint64_t lba, unsigned count)
{
    bool is_extended = ide_is_extended(command);

    outb(IDE_DEVICE, (uint8_t)(DEVICE_LBA | (is_extended ? 0 : lba >> 24 & 0xF)));
    if (is_extended) { /* the older bytes go first */
        outb(IDE_COUNT, (uint8_t)(count >> 8));
        outb(IDE_LBA_LOW, (uint8_t)(lba >> 24));
        outb(IDE_LBA_MID, (uint8_t)(lba >> 32));
        outb(IDE_LBA_HIGH, (uint8_t)(lba >> 40));
    }
    outb(IDE_COUNT, (uint8_t)count);
    outb(IDE_LBA_LOW, (uint8_t)lba);
    outb(IDE_LBA_MID, (uint8_t)(lba >> 8));
    outb(IDE_LBA_HIGH, (uint8_t)(lba >> 16));
    outb(IDE_STATUS, (uint8_t)command);
}

void master_start(uint16_t master, const struct dma_descriptor *table, bool to_memory)
{
    uint8_t direction = to_memory ? MASTER_TO_MEMORY : 0;

    outl(master + MASTER_TABLE, (uint32_t)(uintptr_t)table);
    outb(master + MASTER_STATUS, MASTER_INTERRUPT | MASTER_ERROR);
    outb(master + MASTER_COMMAND, direction);
    outb(master + MASTER_COMMAND, direction | MASTER_START);
}

void master_stop(uint16_t master)
{
    outb(master + MASTER_COMMAND, 0);
}
