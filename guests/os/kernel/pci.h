/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI configuration space, by mechanism 1 (PCI Local Bus Specification 2.2, section 3.2.2.3.2). */
#ifndef PCI_H
#define PCI_H

#include "arch.h"

struct pci_function {
    uint8_t bus, device, function;
};

enum { PCI_COMMAND = 0x04, PCI_CLASS = 0x08, PCI_BAR4 = 0x20 };
enum { PCI_COMMAND_IO = 1, PCI_COMMAND_MASTER = 4 };

/* The first function of bus 0 with a class and subclass; false: there is none. */
bool pci_find(uint16_t class, struct pci_function *found);
uint32_t pci_read(struct pci_function at, unsigned offset);
void pci_write(struct pci_function at, unsigned offset, uint32_t value);

#endif
