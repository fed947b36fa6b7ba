/* SPDX-License-Identifier: GPL-2.0-or-later */
/* INT 14h, 16h and 17h: COM1, which is the keyboard too, and the printer. */
#include "bios.h"
#include "console.h"

#define COM1_INTERRUPT_RECEIVED 1
#define COM1_OUT2_RTS_DTR 0x0b /* OUT2 lets the interrupt through */
#define COM1_DIVISOR_LATCH 0x80
#define TIMEOUT 0x80
#define RECEIVE_TICKS 18 /* one second: then INT 14h gives up */
#define PRINTER_STROBE 0x01
#define PRINTER_CONTROL 0x0c /* selected, not in reset */
#define LINE_FEED 10
#define CARRIAGE_RETURN 13
#define BACKSPACE 8
#define DELETE 127

/* A received byte also ends the HLT of a call that waits for it. */
void serial_start(void)
{
    out8(PORT_COM1_MODEM_CONTROL, COM1_OUT2_RTS_DTR);
    out8(PORT_COM1_INTERRUPTS, COM1_INTERRUPT_RECEIVED);
}

static int has_byte(void)
{
    return in8(PORT_COM1_LINE_STATUS) & COM1_DATA_READY;
}

static void give_line_status(struct registers *regs)
{
    regs->a.h = in8(PORT_COM1_LINE_STATUS);
}

static void set_line(u8 parameters)
{
    static const u16 divisors[] = {1047, 768, 384, 192, 96, 48, 24, 12};
    u16 divisor = divisors[parameters >> 5];

    out8(PORT_COM1_LINE_CONTROL, COM1_DIVISOR_LATCH);
    out8(PORT_COM1, (u8)divisor);
    out8(PORT_COM1_INTERRUPTS, (u8)(divisor >> 8));
    out8(PORT_COM1_LINE_CONTROL, parameters & 0x1f);
}

static enum outcome receive(struct registers *regs)
{
    if (has_byte()) {
        regs->a.l = in8(PORT_COM1);
        regs->a.h = 0;
        return SERVICE_DONE;
    }
    if (regs->waits <= RECEIVE_TICKS)
        return SERVICE_WAIT;
    give_line_status(regs);
    regs->a.h |= TIMEOUT;
    return SERVICE_DONE;
}

enum outcome serial_service(struct registers *regs)
{
    if (regs->d.x || regs->a.h > 3) { /* COM1 is the only one */
        regs->a.h = TIMEOUT;
        return SERVICE_DONE;
    }
    if (regs->a.h == 2)
        return receive(regs);
    if (regs->a.h == 1) {
        print_character(regs->a.l);
    } else {
        if (regs->a.h == 0)
            set_line(regs->a.l);
        regs->a.l = in8(PORT_COM1_MODEM_STATUS);
    }
    give_line_status(regs);
    return SERVICE_DONE;
}

/* ---- the keyboard ---- */

/* Scan codes of a US keyboard by character; a shifted one has that of its key. */
static const u8 scan_codes[] =
    "\x03\x1e\x30\x2e\x20\x12\x21\x22\x0e\x0f\x24\x25\x26\x1c\x31\x18\x19\x10\x13\x1f\x14\x16\x2f\x11\x2d\x15\x2c\x01"
    "\x2b\x1b\x07\x0c" /* 00-1F: with Ctrl */
    "\x39\x02\x28\x04\x05\x06\x08\x28\x0a\x0b\x09\x0d\x33\x0c\x34\x35" /* 20-2F */
    "\x0b\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x27\x27\x33\x0d\x34\x35" /* 30-3F */
    "\x03\x1e\x30\x2e\x20\x12\x21\x22\x23\x17\x24\x25\x26\x32\x31\x18" /* 40-4F */
    "\x19\x10\x13\x1f\x14\x16\x2f\x11\x2d\x15\x2c\x1a\x2b\x1b\x07\x0c" /* 50-5F */
    "\x29\x1e\x30\x2e\x20\x12\x21\x22\x23\x17\x24\x25\x26\x32\x31\x18" /* 60-6F */
    "\x19\x10\x13\x1f\x14\x16\x2f\x11\x2d\x15\x2c\x1a\x2b\x1b\x29\x0e"; /* 70-7F */

_Static_assert(sizeof scan_codes == 129, "128 characters and the end of the string");

/* The key that sends this byte on a terminal. Beyond ASCII there is no key, only its character. */
static u16 key_of(u8 byte)
{
    if (byte == LINE_FEED)
        byte = CARRIAGE_RETURN;
    if (byte == DELETE)
        byte = BACKSPACE;
    return (u16)((byte < 128 ? scan_codes[byte] : 0) << 8 | byte);
}

/* The offset in the buffer after `at`, which a program may have set to anything. */
static u16 next_key(u16 at)
{
    const struct bios_data *data = bios_data();

    return (u16)(at + 2 < data->key_buffer_end ? at + 2 : data->key_buffer_start);
}

static u16 *key_at(u16 offset)
{
    return at_address(BIOS_DATA + offset);
}

/* Returns 0 if the buffer is full. */
static int add_key(u16 key)
{
    struct bios_data *data = bios_data();

    if (next_key(data->key_tail) == data->key_head)
        return 0;
    *key_at(data->key_tail) = key;
    data->key_tail = next_key(data->key_tail);
    return 1;
}

/* COM1 is asked only when a program asks for a key: one that reads the port itself gets every byte. */
static int has_key(void)
{
    const struct bios_data *data = bios_data();

    if (data->key_head == data->key_tail && has_byte())
        add_key(key_of(in8(PORT_COM1)));
    return data->key_head != data->key_tail;
}

enum outcome keyboard_service(struct registers *regs)
{
    struct bios_data *data = bios_data();

    switch (regs->a.h) {
    case 0x00:
    case 0x10:
        if (!has_key())
            return SERVICE_WAIT;
        regs->a.x = *key_at(data->key_head);
        data->key_head = next_key(data->key_head);
        break;
    case 0x01:
    case 0x11:
        set_flag(regs, FLAG_ZERO, !has_key());
        if (!(regs->flags & FLAG_ZERO))
            regs->a.x = *key_at(data->key_head);
        break;
    case 0x02:
        regs->a.l = data->shift_flags[0];
        break;
    case 0x05:
        regs->a.l = !add_key(regs->c.x);
        break;
    case 0x12:
        regs->a.l = data->shift_flags[0];
        regs->a.h = data->shift_flags[1];
        break;
    }
    return SERVICE_DONE;
}

/* ---- the printer ---- */

enum outcome printer_service(struct registers *regs)
{
    u16 port = bios_data()->lpt_ports[0];

    if (!port || regs->d.x || regs->a.h > 2) {
        regs->a.h = 1; /* timeout */
        return SERVICE_DONE;
    }
    if (regs->a.h == 0) {
        out8(port, regs->a.l);
        out8((u16)(port + 2), PRINTER_CONTROL | PRINTER_STROBE);
        out8((u16)(port + 2), PRINTER_CONTROL);
    }
    regs->a.h = (in8((u16)(port + 1)) & 0xf8) ^ 0x48; /* acknowledge and error are low when true */
    return SERVICE_DONE;
}
