/* The smallest application that can be timed: it tells when its main() began.
 *
 * usage: application SOCKET [FILE]
 *
 * Sends "PID NANOSECONDS CONTENTS" as one datagram to the Unix socket SOCKET, where
 * NANOSECONDS is CLOCK_MONOTONIC at the first statement of main() and CONTENTS the beginning
 * of FILE (which configuration it sees). Then it does nothing until a signal ends it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (argc < 2) {
        fprintf(stderr, "usage: application SOCKET [FILE]\n");
        return 2;
    }

    char contents[64] = "";
    if (argc > 2) {
        int file = open(argv[2], O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            ssize_t size = read(file, contents, sizeof contents - 1);
            contents[size > 0 ? size : 0] = 0;
            close(file);
        }
    }

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    char report[160];
    int size = snprintf(report, sizeof report, "%d %lld %s", (int)getpid(),
                        begin.tv_sec * 1000000000LL + begin.tv_nsec, contents);
    int reports = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(reports, report, size, 0, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("application: cannot report");
        return 3;
    }
    close(reports);
    for (;;) pause();
}
