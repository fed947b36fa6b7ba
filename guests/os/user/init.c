/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first program: runs what the kernel's command line says (run="...") and powers off with its status, or a shell again and again. */
#include "lib/system.h"

static int start(char *const argv[])
{
    int pid = fork();

    if (pid == 0) {
        char path[PATH_BYTES] = "/bin/";

        if (strlen(argv[0]) + 6 > PATH_BYTES)
            die("init: a name of %u characters", (unsigned)strlen(argv[0]));
        memcpy(path + (argv[0][0] == '/' ? 0 : 5), argv[0], strlen(argv[0]) + 1);
        int error = exec(path, argv);

        die("init: cannot run %s: error %d", path, -error);
    }
    return pid;
}

/* Its status, once it has ended; orphans of others end meanwhile. */
static int await(int pid)
{
    int status = 0;

    while (wait(-1, &status) != pid)
        ;
    return status;
}

int main(int argc, char **argv)
{
    static char *const shell[] = {"sh", NULL};

    if (argc > 1) {
        int pid = start(argv + 1);

        foreground(pid > 0 ? pid : 0);
        poweroff(pid < 0 ? 1 : await(pid));
    }
    for (;;) {
        int pid = start(shell);

        if (pid < 0)
            die("init: cannot start a shell: error %d", -pid);
        await(pid);
    }
}
