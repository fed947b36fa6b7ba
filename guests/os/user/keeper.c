/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps a window of files, each safe before the next is begun, and says so: `synced N` when file N is on the disk for good, `deleting N` before
 * its name goes. Whatever stops the machine, each file that was synced and not being deleted must be there, word by word.
 */
#include "lib/system.h"

enum { PAGE_WORDS = 1024, NAME = 16 };

static uint32_t files = 100, window = 12, size = 40000, seed = 1;

static char *name_of(uint32_t file, char name[NAME])
{
    memcpy(name, "/keep/00000", 12);
    for (int at = 10; at > 5; at--, file /= 10)
        name[at] = '0' + file % 10;
    return name;
}

static void write_file(uint32_t file)
{
    static uint32_t words[PAGE_WORDS];
    char name[NAME];
    uint32_t count = 1 + mix(seed, file, 0) % (size / 4);
    int fd = open(name_of(file, name), O_WRONLY | O_CREATE | O_TRUNCATE);

    if (fd < 0)
        die("FAIL keeper: cannot open %s: error %d", name, -fd);
    for (uint32_t at = 0; at < count;) {
        uint32_t part = count - at < PAGE_WORDS ? count - at : PAGE_WORDS;

        for (uint32_t i = 0; i < part; i++)
            words[i] = mix(seed, file, 1 + at + i);
        if (!write_all(fd, words, part * 4))
            die("FAIL keeper: cannot write %s", name);
        at += part;
    }
    if (fsync(fd) != 0)
        die("FAIL keeper: cannot sync %s", name);
    close(fd);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"files", &files, NULL}, {"window", &window, NULL}, {"size", &size, NULL}, {"seed", &seed, NULL}};
    int error = mkdir("/keep");

    parse_arguments(argc, argv, options, sizeof options / sizeof *options);
    if (error && error != -EEXIST)
        die("keeper: no disk to write to (error %d)", -error);
    if (!window || size < 4)
        die("keeper: a window of at least 1 file, files of at least 4 bytes");
    for (uint32_t file = 0; file < files; file++) {
        write_file(file);
        print("synced %u\n", file);
        if (file >= window) {
            char name[NAME];

            print("deleting %u\n", file - window);
            unlink(name_of(file - window, name));
        }
    }
    print("keeper summary files=%u\n", files);
    return 0;
}
