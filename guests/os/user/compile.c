/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Many short processes: `units` sources, each compiled by a process of its own, `jobs` at a time; then all objects are read, as a linker does. */
#include "lib/system.h"

enum { MAX_UNITS = 1000, MAX_JOBS = 16, NAME = 16 };

static uint32_t units = 100, jobs = 2, seed = 1, bytes = 16384;
static bool has_disk;
static uint8_t expected[MAX_UNITS]; /* status of each unit's compiler in the first round */

static char *name_of(const char *suffix, uint32_t unit, char name[NAME])
{
    memcpy(name, "/src/u000.", 10);
    for (int at = 8; at > 5; at--, unit /= 10)
        name[at] = '0' + unit % 10;
    memcpy(name + 10, suffix, 2);
    return name;
}

static char *decimal(uint32_t value, char text[12])
{
    char *at = text + 11;

    *at = 0;
    do
        *--at = '0' + value % 10;
    while (value /= 10);
    return at;
}

static void make_sources(void)
{
    char name[NAME];
    char *text = allocate(bytes);
    struct random random;

    random_seed(&random, seed);
    for (uint32_t unit = 0; has_disk && unit < units; unit++) {
        int fd = open(name_of("c", unit, name), O_WRONLY | O_CREATE | O_TRUNCATE);

        for (uint32_t i = 0; i < bytes; i++) {
            uint32_t draw = random_below(&random, 40);

            text[i] = draw < 8 ? (draw ? ' ' : '\n') : 'a' + draw % 7;
        }
        if (fd < 0 || !write_all(fd, text, bytes))
            die("FAIL compile: cannot write %s", name);
        close(fd);
    }
    release(text);
}

static int start(uint32_t unit)
{
    char source[NAME], object[NAME], seed_text[12], bytes_text[12];
    int pid = fork();

    if (pid == 0) {
        char *argv[] = {"cc", has_disk ? name_of("c", unit, source) : "-", has_disk ? name_of("o", unit, object) : "-",
                        decimal(seed + unit, seed_text), decimal(bytes, bytes_text), NULL};
        int error = exec("/bin/cc", argv);

        die("compile: cannot run cc: error %d", -error);
    }
    if (pid < 0)
        die("FAIL compile: no process for unit %u: error %d", unit, -pid);
    return pid;
}

static uint32_t read_objects(void)
{
    static uint32_t object[256];
    uint32_t sum = 0;
    char name[NAME];

    for (uint32_t unit = 0; has_disk && unit < units; unit++) {
        int fd = open(name_of("o", unit, name), O_RDONLY);

        if (fd < 0 || !read_all(fd, object, sizeof object) || object[255] - object[0] != 255)
            die("FAIL compile: %s is not what cc wrote", name);
        close(fd);
        sum ^= object[0];
    }
    return sum;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"units", &units, NULL}, {"jobs", &jobs, NULL}, {"seed", &seed, NULL}, {"bytes", &bytes, NULL}};
    struct {
        int pid;
        uint32_t unit;
    } running[MAX_JOBS] = {{0, 0}};
    uint32_t started = 0, done = 0, count = 0, statuses = 0;
    uint32_t before, printed = 0;
    int error;

    parse_arguments(argc, argv, options, sizeof options / sizeof *options);
    if (!units || units > MAX_UNITS || !jobs || jobs > MAX_JOBS || !bytes)
        die("compile: from 1 to %d units, from 1 to %d jobs", MAX_UNITS, MAX_JOBS);
    error = mkdir("/src");
    has_disk = !error || error == -EEXIST;
    make_sources();
    before = now();
    while (done < units) {
        int status = 0, pid;

        while (started < units && count < jobs)
            for (unsigned i = 0; i < jobs && started < units; i++)
                if (!running[i].pid) {
                    running[i].pid = start(started);
                    running[i].unit = started++;
                    count++;
                }
        pid = wait(-1, &status);
        for (unsigned i = 0; i < jobs; i++)
            if (running[i].pid == pid) {
                running[i].pid = 0;
                expected[running[i].unit] = status;
                if (status >= KILLED)
                    die("FAIL compile: unit %u ended with status %d", running[i].unit, status);
                count--;
                done++;
            }
        if ((now() - before) / TICKS_PER_SECOND != printed) {
            printed = (now() - before) / TICKS_PER_SECOND;
            print("compile second=%u units=%u\n", printed, done);
        }
    }
    for (uint32_t unit = 0; unit < units; unit++)
        statuses = mix(statuses, expected[unit], unit);
    print("compile summary units=%u ticks=%u objects=%u statuses=%u\n", done, now() - before, read_objects(), statuses);
    return 0;
}
