/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The editor of the line that is being typed, for terminals that know ANSI's keys. Plain text is echoed as it comes, and backspace takes
 * the last character away; all else is shown by backspaces and by writing again what is behind, so that a line may be as wide as the terminal.
 *
 *     left, right, control B, F    home, end, control A, E    backspace, delete    control U, K, W: to the start, to the end, a word
 *     up, down, control P, N: lines typed before
 */
#include "line.h"

#include "../../lib/string.h"
#include "console.h"

enum { HISTORY_LINES = 16 };

enum {
    CONTROL_A = 1,
    CONTROL_B = 2,
    CONTROL_D = 4,
    CONTROL_E = 5,
    CONTROL_F = 6,
    BACKSPACE = 8,
    CONTROL_K = 11,
    CONTROL_N = 14,
    CONTROL_P = 16,
    CONTROL_U = 21,
    CONTROL_W = 23,
    ESCAPE = 27,
    DELETE = 127,
};

/* Where in a key's sequence we are: ESC [ DIGITS LETTER, ESC O LETTER. */
enum key_state { KEY_NONE, KEY_ESCAPE, KEY_SEQUENCE };

char line_text[LINE_BYTES];
unsigned line_length;

static unsigned cursor;                          /* where the next character goes */
static enum key_state key_state;
static unsigned key_number;                      /* the sequence's first digits */
static char history[HISTORY_LINES][LINE_BYTES];  /* terminated; line n is in place n modulo their number */
static unsigned remembered;                      /* lines, ever */
static unsigned back_by;                         /* the line shown is so many back; 0: the one that is being typed */
static char unfinished[LINE_BYTES];              /* that one, while an older line is shown */

static void show(const char *text, unsigned count)
{
    console_write(text, count);
}

static void show_times(char c, unsigned count)
{
    while (count--)
        show(&c, 1);
}

static void move_to(unsigned place)
{
    if (place < cursor)
        show_times('\b', cursor - place);
    else
        show(line_text + cursor, place - cursor);
    cursor = place;
}

/* Shows the text from the cursor on, with spaces over what was behind it, and comes back. */
static void show_rest(unsigned surplus)
{
    show(line_text + cursor, line_length - cursor);
    show_times(' ', surplus);
    show_times('\b', line_length - cursor + surplus);
}

static void insert(char c)
{
    if (line_length == LINE_BYTES - 2) /* with its line feed it fits a reader's string */
        return;
    memmove(line_text + cursor + 1, line_text + cursor, line_length - cursor);
    line_text[cursor++] = c;
    line_length++;
    show(&c, 1);
    show_rest(0);
}

/* Takes away what lies between two places, one of them the cursor. */
static void erase(unsigned from, unsigned to)
{
    if (from >= to || to > line_length)
        return;
    move_to(from);
    memmove(line_text + from, line_text + to, line_length - to);
    line_length -= to - from;
    show_rest(to - from);
}

static unsigned start_of_word(void)
{
    unsigned at = cursor;

    while (at && line_text[at - 1] == ' ')
        at--;
    while (at && line_text[at - 1] != ' ')
        at--;
    return at;
}

/* ---- lines typed before ---- */

static void remember(void)
{
    const char *last = history[(remembered - 1) % HISTORY_LINES];

    if (!line_length || (remembered && strlen(last) == line_length && strncmp(last, line_text, line_length) == 0))
        return;
    memcpy(history[remembered % HISTORY_LINES], line_text, line_length);
    history[remembered % HISTORY_LINES][line_length] = 0;
    remembered++;
}

static void replace(const char *text)
{
    unsigned before = line_length;

    move_to(0);
    line_length = strlen(text);
    memcpy(line_text, text, line_length);
    show_rest(before > line_length ? before - line_length : 0);
    move_to(line_length);
}

static void recall(unsigned by)
{
    if (by > remembered || by > HISTORY_LINES)
        return;
    if (!back_by) {
        memcpy(unfinished, line_text, line_length);
        unfinished[line_length] = 0;
    }
    back_by = by;
    replace(by ? history[(remembered - by) % HISTORY_LINES] : unfinished);
}

static void recall_older(void)
{
    recall(back_by + 1);
}

static void recall_newer(void)
{
    if (back_by)
        recall(back_by - 1);
}

/* ---- keys ---- */

static void on_numbered_key(void)
{
    switch (key_number) {
    case 1:
    case 7:
        move_to(0);
        break;
    case 4:
    case 8:
        move_to(line_length);
        break;
    case 3:
        erase(cursor, cursor + 1);
        break;
    }
}

static void on_key(char letter)
{
    switch (letter) {
    case 'A':
        recall_older();
        break;
    case 'B':
        recall_newer();
        break;
    case 'C':
        if (cursor < line_length)
            move_to(cursor + 1);
        break;
    case 'D':
        if (cursor)
            move_to(cursor - 1);
        break;
    case 'H':
        move_to(0);
        break;
    case 'F':
        move_to(line_length);
        break;
    case '~':
        on_numbered_key();
        break;
    }
}

/* The rest of a key's sequence; false: the character is none of it. */
static bool take_of_sequence(char c)
{
    if (key_state == KEY_ESCAPE) {
        key_state = c == '[' || c == 'O' ? KEY_SEQUENCE : KEY_NONE;
        key_number = 0;
        return key_state == KEY_SEQUENCE;
    }
    if (c >= '0' && c <= '9') {
        if (key_number < 100)
            key_number = 10 * key_number + (unsigned)(c - '0');
    } else if (c == ';') { /* a modifier follows: the key does what it does without */
        key_number += 1000;
    } else {
        key_number %= 1000;
        key_state = KEY_NONE;
        if (c < '@' || c > '~')
            return false;
        on_key(c);
    }
    return true;
}

static void on_control(char c)
{
    switch (c) {
    case CONTROL_A:
        move_to(0);
        break;
    case CONTROL_E:
        move_to(line_length);
        break;
    case CONTROL_B:
        on_key('D');
        break;
    case CONTROL_F:
        on_key('C');
        break;
    case CONTROL_P:
        recall_older();
        break;
    case CONTROL_N:
        recall_newer();
        break;
    case CONTROL_U:
        erase(0, cursor);
        break;
    case CONTROL_K:
        erase(cursor, line_length);
        break;
    case CONTROL_W:
        erase(start_of_word(), cursor);
        break;
    case BACKSPACE:
    case DELETE:
        if (cursor)
            erase(cursor - 1, cursor);
        break;
    case ESCAPE:
        key_state = KEY_ESCAPE;
        break;
    }
}

bool line_take(char c)
{
    if (key_state != KEY_NONE && take_of_sequence(c))
        return false;
    if (c == '\r' || c == '\n' || c == CONTROL_D) {
        remember();
        if (c != CONTROL_D)
            line_text[line_length++] = '\n';
        show("\n", 1);
        return true;
    }
    if (c >= ' ' && c < DELETE)
        insert(c);
    else
        on_control(c);
    return false;
}

void line_clear(void)
{
    line_length = cursor = back_by = 0;
    key_state = KEY_NONE;
}
