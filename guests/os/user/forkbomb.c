/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Forks in every process until no process can be had, several times over: the system must refuse, and serve others again after. */
#include "lib/system.h"

int main(int argc, char **argv)
{
    static uint32_t rounds = 3;
    static const struct option options[] = {{"rounds", &rounds, NULL}};
    uint32_t most = 0;

    parse_arguments(argc, argv, options, 1);
    for (uint32_t round = 1; round <= rounds; round++) {
        uint32_t made = 0;
        int pid, status;

        while ((pid = fork()) > 0)
            made++;
        if (pid == 0) {
            while (fork() > 0)
                ;
            sleep(10);
            while (wait(-1, &status) > 0)
                ;
            exit(0);
        }
        if (pid != -EAGAIN && pid != -ENOMEM)
            die("FAIL forkbomb: fork answered %d", pid);
        while (wait(-1, &status) > 0)
            ;
        most = made > most ? made : most;
        print("forkbomb second=%u processes=%u refused=%d\n", round, made, -pid);
    }
    print("forkbomb summary rounds=%u processes=%u\n", rounds, most);
    return 0;
}
