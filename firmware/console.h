/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The firmware's voice: COM1. */
#ifndef FIRMWARE_CONSOLE_H
#define FIRMWARE_CONSOLE_H

#include "io.h"

#define PORT_COM1 0x3f8
#define PORT_COM1_INTERRUPTS 0x3f9
#define PORT_COM1_LINE_CONTROL 0x3fb
#define PORT_COM1_MODEM_CONTROL 0x3fc
#define PORT_COM1_LINE_STATUS 0x3fd
#define PORT_COM1_MODEM_STATUS 0x3fe
#define COM1_DATA_READY 0x01
#define COM1_TRANSMITTER_EMPTY 0x20

void print_character(u8 character);
void print(const char *text);
void print_hex(u32 value, u32 digits);

/* Prints a line and halts for ever; only a reset ends it. */
_Noreturn void fail(const char *message);
_Noreturn void stop(void);

#endif
