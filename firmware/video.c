/* SPDX-License-Identifier: GPL-2.0-or-later */
/* INT 10h: one page of 80 by 25 colour text. What is written as on a teletype goes to COM1 too. */
#include "bios.h"
#include "console.h"

#define COLUMNS 80
#define ROWS 25
#define TEXT_MODE 3
#define PAGE_BYTES 4096
#define GREY_ON_BLACK 0x07
#define PORT_CRTC_INDEX 0x3d4
#define PORT_CRTC_DATA 0x3d5
#define CRTC_CURSOR_START 0x0a
#define CRTC_CURSOR_HIGH 0x0e
#define BELL 7
#define BACKSPACE 8
#define LINE_FEED 10
#define CARRIAGE_RETURN 13

#define STRING_MOVES_CURSOR 1
#define STRING_HAS_ATTRIBUTES 2

/* Columns and rows, both ends included. */
struct window {
    u8 left, top, right, bottom;
};

static volatile u16 *cell(u32 column, u32 row)
{
    return (volatile u16 *)TEXT_MEMORY + row * COLUMNS + column;
}

static void crtc_pair(u8 index, u16 value)
{
    out8(PORT_CRTC_INDEX, index);
    out8(PORT_CRTC_DATA, (u8)(value >> 8));
    out8(PORT_CRTC_INDEX, (u8)(index + 1));
    out8(PORT_CRTC_DATA, (u8)value);
}

static void move_cursor(u8 column, u8 row)
{
    bios_data()->cursor[0].column = column;
    bios_data()->cursor[0].row = row;
    crtc_pair(CRTC_CURSOR_HIGH, (u16)(row * COLUMNS + column));
}

/* Moves the window's text up by `lines`, down if negative; new lines are blank. */
static void scroll(struct window window, int lines, u8 attribute)
{
    int height = window.bottom - window.top + 1;

    for (int i = 0; i < height; i++) {
        int to = lines >= 0 ? i : height - 1 - i, from = to + lines;
        for (u32 column = window.left; column <= window.right; column++)
            *cell(column, window.top + (u32)to) = from >= 0 && from < height
                                                      ? *cell(column, window.top + (u32)from)
                                                      : (u16)(attribute << 8 | ' ');
    }
}

static void scroll_service(const struct registers *regs, int direction)
{
    struct window window = {regs->c.l, regs->c.h, regs->d.l, regs->d.h};

    if (window.right >= COLUMNS)
        window.right = COLUMNS - 1;
    if (window.bottom >= ROWS)
        window.bottom = ROWS - 1;
    if (window.left > window.right || window.top > window.bottom)
        return;
    scroll(window, direction * (regs->a.l ? regs->a.l : ROWS), regs->b.h);
}

void video_describe(struct bios_data *data)
{
    data->video_mode = TEXT_MODE;
    data->columns = COLUMNS;
    data->page_bytes = PAGE_BYTES;
    data->last_row = ROWS - 1;
    data->character_height = 16;
    data->cursor_shape = 0x0607;
    data->crtc_port = PORT_CRTC_INDEX;
}

void video_clear(void)
{
    video_describe(bios_data());
    scroll((struct window){0, 0, COLUMNS - 1, ROWS - 1}, ROWS, GREY_ON_BLACK);
    move_cursor(0, 0);
}

static void line_feed(u8 column, u8 row)
{
    if (row + 1 < ROWS) {
        move_cursor(column, (u8)(row + 1));
        return;
    }
    scroll((struct window){0, 0, COLUMNS - 1, ROWS - 1}, 1, (u8)(*cell(column, ROWS - 1) >> 8));
    move_cursor(column, ROWS - 1);
}

/* `attribute` below 0 keeps the one that is there. */
static void teletype(u8 character, int attribute)
{
    u8 column = bios_data()->cursor[0].column, row = bios_data()->cursor[0].row;

    print_character(character);
    if (column >= COLUMNS || row >= ROWS) /* a program put it outside */
        column = row = 0;
    if (character == BELL)
        return;
    if (character == BACKSPACE) {
        move_cursor((u8)(column ? column - 1 : 0), row);
    } else if (character == CARRIAGE_RETURN) {
        move_cursor(0, row);
    } else if (character == LINE_FEED) {
        line_feed(column, row);
    } else {
        *cell(column, row) = (u16)((attribute < 0 ? *cell(column, row) >> 8 : attribute) << 8 | character);
        if (column + 1 < COLUMNS)
            move_cursor((u8)(column + 1), row);
        else
            line_feed(0, row);
    }
}

/* AH=09h and 0Ah: at the cursor, which stays. */
static void write_cells(const struct registers *regs, int has_attribute)
{
    u32 at = bios_data()->cursor[0].row * COLUMNS + bios_data()->cursor[0].column;

    for (u32 i = 0; i < regs->c.x && at + i < COLUMNS * ROWS; i++) {
        u16 attribute = has_attribute ? regs->b.l : *cell(at + i, 0) >> 8;
        *cell(at + i, 0) = (u16)(attribute << 8 | regs->a.l);
    }
}

static void write_string(const struct registers *regs)
{
    const u8 *text = real_address(regs->es, (u16)regs->ebp);
    u8 column = bios_data()->cursor[0].column, row = bios_data()->cursor[0].row;

    move_cursor(regs->d.l, regs->d.h);
    for (u32 i = 0; i < regs->c.x; i++) {
        u8 character = *text++;
        teletype(character, regs->a.l & STRING_HAS_ATTRIBUTES ? *text++ : regs->b.l);
    }
    if (!(regs->a.l & STRING_MOVES_CURSOR))
        move_cursor(column, row);
}

enum outcome video_service(struct registers *regs)
{
    struct bios_data *data = bios_data();

    switch (regs->a.h) {
    case 0x00: /* text modes are all the same one; others do not exist */
        if ((regs->a.l & 0x7f) <= TEXT_MODE)
            video_clear();
        break;
    case 0x01:
        data->cursor_shape = regs->c.x;
        crtc_pair(CRTC_CURSOR_START, regs->c.x);
        break;
    case 0x02:
        move_cursor(regs->d.l, regs->d.h);
        break;
    case 0x03:
        regs->a.x = 0;
        regs->c.x = data->cursor_shape;
        regs->d.l = data->cursor[0].column;
        regs->d.h = data->cursor[0].row;
        break;
    case 0x06:
        scroll_service(regs, 1);
        break;
    case 0x07:
        scroll_service(regs, -1);
        break;
    case 0x08:
        regs->a.x = *cell(data->cursor[0].column, data->cursor[0].row);
        break;
    case 0x09:
        write_cells(regs, 1);
        break;
    case 0x0a:
        write_cells(regs, 0);
        break;
    case 0x0e:
        teletype(regs->a.l, -1);
        break;
    case 0x0f:
        regs->a.l = data->video_mode;
        regs->a.h = (u8)data->columns;
        regs->b.h = 0;
        break;
    case 0x13:
        write_string(regs);
        break;
    }
    return SERVICE_DONE;
}
