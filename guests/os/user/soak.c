/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs workloads side by side, round after round, and ends with status 1 if one of them found a wrong byte or was killed. */
#include "lib/system.h"

enum { PROGRAMS = 5, WORDS = 8 };

static uint32_t rounds = 1;

static int start(char *const argv[])
{
    int pid = fork();

    if (pid == 0) {
        char path[32] = "/bin/";

        memcpy(path + 5, argv[0], strlen(argv[0]) + 1);
        exit(-exec(path, argv));
    }
    if (pid < 0)
        die("FAIL soak: no process for %s: error %d", argv[0], -pid);
    return pid;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", &rounds, NULL}};
    static char *const programs[PROGRAMS][WORDS] = {
        {"filebench", "files=120", "size=96k", "seconds=20", NULL},
        {"database", "rows=60000", "seconds=20", NULL},
        {"toucher", "schedule=1m@0,6m@5,2m@12", "seconds=20", NULL},
        {"compile", "units=60", "jobs=3", "bytes=24k", NULL},
        {"memhog", "size=10m", "hold=3", NULL},
    };

    parse_arguments(argc, argv, options, 1);
    for (uint32_t round = 1; round <= rounds; round++) {
        int pids[PROGRAMS];

        for (unsigned i = 0; i < PROGRAMS; i++)
            pids[i] = start(programs[i]);
        for (unsigned i = 0; i < PROGRAMS; i++) {
            int status = 0;

            wait(pids[i], &status);
            if (status)
                die("FAIL soak: %s ended with status %d in round %u", programs[i][0], status, round);
        }
        print("soak second=%u round=%u\n", now() / TICKS_PER_SECOND, round);
    }
    print("soak summary rounds=%u\n", rounds);
    return 0;
}
