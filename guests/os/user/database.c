/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table in a file that is mapped and shared: rows chosen by Zipf's law, read with their checksum or given a new version. */
#include "lib/system.h"

enum { ROW_WORDS = 32, PERCENT = 100, SPREAD = 40503 };

struct row {
    uint32_t number, version, payload[ROW_WORDS - 3], checksum;
};

static uint32_t rows = 16384, seconds = 10, seed = 1, writes = 20;

static uint32_t checksum_of(const struct row *row)
{
    uint32_t sum = mix(row->number, row->version, seed);

    for (unsigned i = 0; i < ROW_WORDS - 3; i++)
        sum = (sum << 7 | sum >> 25) + row->payload[i];
    return sum;
}

static void set_row(struct row *row, uint32_t number, uint32_t version)
{
    row->number = number;
    row->version = version;
    for (unsigned i = 0; i < ROW_WORDS - 3; i++)
        row->payload[i] = number * i ^ version;
    row->checksum = checksum_of(row);
}

static void check_row(const struct row *row, uint32_t number)
{
    if (row->number != number || row->checksum != checksum_of(row))
        die("FAIL database: row %u has number %u, version %u and a wrong checksum", number, row->number, row->version);
}

/* The file at its full size: a mapping does not make it longer. */
static int make_table(void)
{
    static struct row page[32];
    int fd = open("/table", O_RDWR | O_CREATE | O_TRUNCATE);

    if (fd < 0)
        die("database: no disk to write to (error %d)", -fd);
    for (uint32_t row = 0; row < rows; row += 32) {
        for (uint32_t i = 0; i < 32; i++)
            set_row(&page[i], row + i, 0);
        if (!write_all(fd, page, sizeof page))
            die("FAIL database: cannot write the table");
    }
    return fd;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rows", &rows, NULL}, {"seconds", &seconds, NULL}, {"seed", &seed, NULL}, {"writes", &writes, NULL}};
    struct random choices;
    struct zipf zipf;
    struct seconds time;
    struct row *table;
    uint32_t reads_done = 0, writes_done = 0, before = 0;
    int fd;

    parse_arguments(argc, argv, options, sizeof options / sizeof *options);
    rows = (rows + 31) / 32 * 32;
    if (!rows || rows > 1 << 22)
        die("database: from 1 to %u rows", 1 << 22);
    random_seed(&choices, seed);
    zipf_init(&zipf, rows);
    fd = make_table();
    table = mmap(rows * sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!table)
        die("database: the table cannot be mapped");
    seconds_start(&time, seconds);
    while (!seconds_are_over(&time)) {
        uint32_t number = zipf_next(&zipf, &choices) * SPREAD % rows; /* hot rows lie all over the table */

        check_row(&table[number], number);
        if (random_below(&choices, PERCENT) < writes) {
            set_row(&table[number], number, table[number].version + 1);
            writes_done++;
        } else {
            reads_done++;
        }
        if (second_has_ended(&time)) {
            print("database second=%u operations=%u\n", time.passed, reads_done + writes_done - before);
            before = reads_done + writes_done;
        }
    }
    for (uint32_t number = 0; number < rows; number++)
        check_row(&table[number], number);
    if (munmap(table, rows * sizeof *table) != 0 || fsync(fd) != 0)
        die("FAIL database: the table cannot be written back");
    print("database summary seconds=%u reads=%u writes=%u\n", time.passed, reads_done, writes_done);
    return 0;
}
