/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file server's day: whole files are read, rewritten, deleted and made anew, chosen at random. Every byte follows from seed, file, version
 * and place, so each read is a check. Throughput falls when the page cache is smaller than the files (the paper's dbench).
 */
#include "lib/system.h"

enum { PAGE = 4096, PAGE_WORDS = PAGE / 4, PERCENT = 100, LEAST_BYTES = 512, STRIDE = 0x01000193 };

static uint32_t files = 100, size = 65536, seconds = 10, seed = 1, reads = 70, writes = 20, creates = 5;
static uint32_t operations; /* so many instead of a time: the same work on every machine */
static uint32_t *versions; /* of each file, 0: it is not there */
static uint32_t page[PAGE_WORDS];
static struct random choices;
static uint64_t bytes_moved;
static uint32_t counts[4]; /* reads, writes, creates, deletes */

static char *name_of(uint32_t file)
{
    static char name[] = "/fb/00000";

    for (int at = 8; at > 3; at--, file /= 10)
        name[at] = '0' + file % 10;
    return name;
}

static uint32_t bytes_of(uint32_t file, uint32_t version)
{
    return LEAST_BYTES + mix(seed, file, version) % (size > LEAST_BYTES ? size - LEAST_BYTES + 1 : 1);
}

static void fill_page(uint32_t file, uint32_t version, uint32_t number)
{
    uint32_t base = mix(seed ^ file, version, number);

#pragma clang loop unroll_count(16)
    for (uint32_t i = 0; i < PAGE_WORDS; i++)
        page[i] = base + i * STRIDE;
}

static void check_page(uint32_t file, uint32_t version, uint32_t number, uint32_t bytes)
{
    uint32_t base = mix(seed ^ file, version, number);

    uint32_t wrong = 0;

#pragma clang loop unroll_count(16)
    for (uint32_t i = 0; i < bytes / 4; i++)
        wrong |= page[i] ^ (base + i * STRIDE);
    if (!wrong)
        return;
    for (uint32_t i = 0; i < bytes / 4; i++)
        if (page[i] != base + i * STRIDE)
            die("FAIL filebench: %s version %u, byte %u: expected %x, seen %x", name_of(file), version, number * PAGE + i * 4,
                base + i * STRIDE, page[i]);
}

static void write_file(uint32_t file, uint32_t version)
{
    uint32_t left = bytes_of(file, version);
    int fd = open(name_of(file), O_WRONLY | O_CREATE | O_TRUNCATE);

    if (fd < 0)
        die("FAIL filebench: cannot open %s: error %d", name_of(file), -fd);
    for (uint32_t number = 0; left; number++) {
        uint32_t part = left < PAGE ? left : PAGE;

        fill_page(file, version, number);
        if (!write_all(fd, page, part))
            die("FAIL filebench: cannot write %s", name_of(file));
        left -= part;
        bytes_moved += part;
    }
    close(fd);
    versions[file] = version;
}

static void read_file(uint32_t file)
{
    uint32_t left = bytes_of(file, versions[file]);
    int fd = open(name_of(file), O_RDONLY);

    if (fd < 0)
        die("FAIL filebench: cannot open %s: error %d", name_of(file), -fd);
    for (uint32_t number = 0; left; number++) {
        uint32_t part = left < PAGE ? left : PAGE;

        if (!read_all(fd, page, part))
            die("FAIL filebench: cannot read %s at %u", name_of(file), number * PAGE);
        check_page(file, versions[file], number, part);
        left -= part;
        bytes_moved += part;
    }
    if (read(fd, page, 1) != 0)
        die("FAIL filebench: %s is longer than it was written", name_of(file));
    close(fd);
}

static void step(uint32_t *version)
{
    uint32_t file = random_below(&choices, files);
    uint32_t kind = random_below(&choices, PERCENT);

    if (!versions[file]) {
        write_file(file, ++*version);
        counts[2]++;
    } else if (kind < reads) {
        read_file(file);
        counts[0]++;
    } else if (kind < reads + writes) {
        write_file(file, ++*version);
        counts[1]++;
    } else if (kind < reads + writes + creates) {
        read_file(file); /* a file that is there cannot be made: looked at instead */
        counts[0]++;
    } else {
        int error = unlink(name_of(file));

        if (error)
            die("FAIL filebench: cannot delete %s: error %d", name_of(file), -error);
        versions[file] = 0;
        counts[3]++;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"files", &files, NULL}, {"size", &size, NULL}, {"seconds", &seconds, NULL}, {"seed", &seed, NULL},
        {"reads", &reads, NULL}, {"writes", &writes, NULL}, {"creates", &creates, NULL}, {"operations", &operations, NULL},
    };
    struct seconds time;
    uint64_t before = 0, measured;
    uint32_t version = 1;
    int error = mkdir("/fb");

    parse_arguments(argc, argv, options, sizeof options / sizeof *options);
    if (error && error != -EEXIST)
        die("filebench: no disk to write to (error %d)", -error);
    if (!files || files > 99999 || reads + writes + creates > PERCENT)
        die("filebench: files from 1 to 99999, and shares that make up at most 100");
    versions = allocate(files * sizeof *versions);
    random_seed(&choices, seed);
    for (uint32_t file = 0; file < files; file++)
        write_file(file, version);
    bytes_moved = 0;
    seconds_start(&time, seconds);
    for (uint32_t done = 0; operations ? done < operations : !seconds_are_over(&time); done++) {
        step(&version);
        if (second_has_ended(&time)) {
            print("filebench second=%u bytes=%U reads=%u writes=%u creates=%u deletes=%u\n", time.passed, bytes_moved - before, counts[0],
                  counts[1], counts[2], counts[3]);
            before = bytes_moved;
        }
    }
    measured = operations ? bytes_moved : before;
    for (uint32_t file = 0; file < files && !operations; file++)
        if (versions[file])
            read_file(file);
    print("filebench summary seconds=%u bytes=%U reads=%u writes=%u creates=%u deletes=%u\n", time.passed, measured, counts[0], counts[1],
          counts[2], counts[3]);
    return 0;
}
