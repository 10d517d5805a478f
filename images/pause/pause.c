/*
 * The process that holds a pod's namespaces open: it sleeps, collects orphans when the pod shares its process namespace,
 * and ends when told to. Static, for its image has nothing else in it.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int number) { (void)number; _exit(0); }
static void collect(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(void) {
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    signal(SIGCHLD, collect);
    for (;;) pause();
}
