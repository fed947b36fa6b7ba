/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pci.h"

#include "io.h"

enum { ADDRESS_PORT = 0xCF8, DATA_PORT = 0xCFC, DEVICES = 32, FUNCTIONS = 8, CLASS_SHIFT = 16 };
static const uint32_t ENABLE = 0x80000000;
static const uint32_t ABSENT = 0xFFFFFFFF;

static void select(struct pci_function at, unsigned offset)
{
    outl(ADDRESS_PORT, ENABLE | at.bus << 16 | at.device << 11 | at.function << 8 | (offset & 0xFC));
}

uint32_t pci_read(struct pci_function at, unsigned offset)
{
    select(at, offset);
    return inl(DATA_PORT);
}

void pci_write(struct pci_function at, unsigned offset, uint32_t value)
{
    select(at, offset);
    outl(DATA_PORT, value);
}

bool pci_find(uint16_t class, struct pci_function *found)
{
    for (unsigned device = 0; device < DEVICES; device++)
        for (unsigned function = 0; function < FUNCTIONS; function++) {
            *found = (struct pci_function){0, device, function};
            if (pci_read(*found, 0) == ABSENT) {
                if (!function)
                    break; /* no function 0, no device */
            } else if (pci_read(*found, PCI_CLASS) >> CLASS_SHIFT == class) {
                return true;
            }
        }
    return false;
}
