/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "serial.h"

#include "platform.h"
#include "ports.h"

enum {
    DATA = COM1_PORT,                 /* the divisor's low byte while DLAB is set */
    INTERRUPT_ENABLE = COM1_PORT + 1, /* the divisor's high byte while DLAB is set */
    LINE_CONTROL = COM1_PORT + 3,
    MODEM_CONTROL = COM1_PORT + 4,
    LINE_STATUS = COM1_PORT + 5,
};

enum {
    IER_RECEIVED = 0x01,
    LCR_8N1 = 0x03,
    LCR_DLAB = 0x80,
    MCR_DTR_RTS = 0x03,
    MCR_OUT2 = 0x08, /* on a PC this line lets the UART's interrupt through to the 8259 */
    LSR_DATA_READY = 0x01,
    LSR_TRANSMIT_EMPTY = 0x20,
};

/* The FIFOs stay off: to enable them is to clear them, and with them what was typed before we came up. */
void serial_init(void)
{
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, LCR_DLAB);
    outb(DATA, 1); /* 115200 baud */
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, LCR_8N1);
    outb(MODEM_CONTROL, MCR_DTR_RTS | MCR_OUT2);
}

void serial_put(char c)
{
    while (!(inb(LINE_STATUS) & LSR_TRANSMIT_EMPTY))
        ;
    outb(DATA, (uint8_t)c);
}

void serial_enable_receive_interrupt(void)
{
    outb(INTERRUPT_ENABLE, IER_RECEIVED);
}

bool serial_has_input(void)
{
    return inb(LINE_STATUS) & LSR_DATA_READY;
}

char serial_get(void)
{
    return (char)inb(DATA);
}
