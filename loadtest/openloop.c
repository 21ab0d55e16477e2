/* The open loop of loadtest/generator.py, for rates at which Python would distort the figures.
 *
 *     openloop HOST PORT REQUESTS DUE CONNECTIONS GRACE OUT
 *
 * REQUESTS  file: for each request its length (4 bytes), then its text; used in turn
 * DUE       file: the planned times, doubles, seconds from the start, ascending
 * OUT       file: for each planned time a struct outcome
 *
 * One thread, one epoll. Numbers are this machine's own: Python's struct module reads them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 16384, EVENTS = 256 };
enum { NOT_SENT, UNKNOWN, REFUSED, OK };
static const double REOPEN = 0.05, LEAD = 0.1, LONGEST_PAUSE = 0.01;

struct outcome { double latency; int64_t id; int32_t status, what; };
struct text { char *at; uint32_t length; };
struct connection { int fd; int64_t number; size_t had; char answer[ANSWER + 1]; };

static struct text *requests;
static struct outcome *outcomes;
static double *due;
static size_t different, planned;
static struct connection *all;
static int *idle, connections, first_idle, idle_count, *broken, broken_count;
static int epoll, pending, reopened;
static struct addrinfo *address;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    struct stat about;
    if (!file || fstat(fileno(file), &about)) fail(path);
    char *text = malloc(about.st_size + 1);
    if (!text || fread(text, 1, about.st_size, file) != (size_t)about.st_size) fail(path);
    fclose(file);
    *length = about.st_size;
    return text;
}

static void read_requests(const char *path) {
    size_t length, at = 0;
    char *text = read_file(path, &length);
    requests = calloc(length / sizeof(uint32_t) + 1, sizeof *requests);
    while (at + sizeof(uint32_t) <= length) {
        struct text *each = &requests[different++];
        memcpy(&each->length, text + at, sizeof(uint32_t));
        each->at = text + at + sizeof(uint32_t);
        at += sizeof(uint32_t) + each->length;
    }
    if (at != length || !different) { fprintf(stderr, "%s: cut off\n", path); exit(2); }
}

static void become_idle(int index) {
    all[index].number = -1;
    all[index].had = 0;
    idle[(first_idle + idle_count++) % connections] = index;
}

static int open_connection(int index) {
    int fd = socket(address->ai_family, SOCK_STREAM, 0), on = 1;
    struct timeval limit = {2, 0};
    if (fd < 0) return 0;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    if (connect(fd, address->ai_addr, address->ai_addrlen)
        || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) {
        close(fd);
        return 0;
    }
    all[index].fd = fd;
    become_idle(index);
    return 1;
}

/* Its pending request stays unknown. */
static void drop(int index) {
    if (all[index].number >= 0) pending--;
    close(all[index].fd);
    all[index].fd = -1;
    broken[broken_count++] = index;
}

static void forget_idle(int index) {
    int kept = 0;
    for (int each = 0; each < idle_count; each++) {
        int other = idle[(first_idle + each) % connections];
        if (other != index) idle[(first_idle + kept++) % connections] = other;
    }
    idle_count = kept;
}

static void send_request(size_t number) {
    int index = idle[first_idle];
    struct text *text = &requests[number % different];
    first_idle = (first_idle + 1) % connections;
    idle_count--;
    all[index].number = number;
    outcomes[number].what = UNKNOWN;
    pending++;
    ssize_t sent = send(all[index].fd, text->at, text->length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent != (ssize_t)text->length) drop(index);
}

/* Returns 1 for a complete answer, 0 for an incomplete one, -1 for an invalid one. */
static int parse_answer(struct connection *from, double at, int *closes) {
    char *text = from->answer, *end = strstr(text, "\r\n\r\n");
    if (!end) return from->had < ANSWER ? 0 : -1;
    *end = 0;
    char *length = strcasestr(text, "\r\ncontent-length:");
    *closes = strcasestr(text, "\r\nconnection: close") != NULL;
    long body = length ? atol(length + 17) : -1;
    *end = '\r';
    if (body < 0 || end + 4 - text + body > ANSWER) return -1;
    if ((long)from->had < end + 4 - text + body) return 0;
    struct outcome *to = &outcomes[from->number];
    to->latency = at - due[from->number];
    to->status = atoi(text + 9);
    if (to->status == 201) {
        char *id = strstr(end, "\"id\":");
        to->what = OK;
        to->id = id ? atoll(id + 5) : 0;
    } else if (to->status == 503) {
        if (strstr(end, "\"stored\":\"no\"") || strstr(end, "\"stored\": \"no\"")) to->what = REFUSED;
    } else if (to->status >= 400 && to->status < 500) {
        to->what = REFUSED;
    }
    return 1;
}

static void receive(int index, double start) {
    struct connection *from = &all[index];
    if (from->number < 0) { /* no request is pending: the server closes it */
        forget_idle(index);
        drop(index);
        return;
    }
    ssize_t got = recv(from->fd, from->answer + from->had, ANSWER - from->had, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { drop(index); return; }
    from->had += got;
    from->answer[from->had] = 0;
    int closes = 0, complete = parse_answer(from, now() - start, &closes);
    if (complete < 0) { drop(index); return; }
    if (!complete) return;
    pending--;
    from->number = -1;
    if (closes) drop(index);
    else become_idle(index);
}

static void replace_broken(void) {
    while (broken_count && open_connection(broken[broken_count - 1])) {
        broken_count--;
        reopened++;
    }
}

static size_t run(double start, double grace) {
    size_t sent = 0, reached = 0, longest = 0;
    double end = due[planned - 1] + grace, reopen = 0;
    struct epoll_event events[EVENTS];
    for (;;) {
        double at = now() - start;
        while (reached < planned && due[reached] <= at) reached++;
        if (reached - sent > (size_t)idle_count && reached - sent - idle_count > longest)
            longest = reached - sent - idle_count;
        while (sent < reached && idle_count) send_request(sent++);
        if (at >= end || (sent == planned && !pending)) return longest;
        double pause = reached < planned ? due[reached] - (now() - start) : LONGEST_PAUSE;
        if (pause > LONGEST_PAUSE) pause = LONGEST_PAUSE;
        if (pause < 0) pause = 0;
        struct timespec limit = {0, (long)(pause * 1e9)};
        int ready = epoll_pwait2(epoll, events, EVENTS, &limit, NULL);
        for (int each = 0; each < ready; each++) receive(events[each].data.u32, start);
        if (broken_count && at >= reopen) {
            replace_broken();
            reopen = at + REOPEN;
        }
    }
}

int main(int count, char **words) {
    if (count != 8) { fprintf(stderr, "see the head of openloop.c\n"); return 2; }
    size_t length;
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
    if (getaddrinfo(words[1], words[2], &wanted, &address)) { fprintf(stderr, "%s: unknown\n", words[1]); return 2; }
    read_requests(words[3]);
    due = (double *)read_file(words[4], &length);
    planned = length / sizeof *due;
    connections = atoi(words[5]);
    outcomes = calloc(planned, sizeof *outcomes);
    all = calloc(connections, sizeof *all);
    idle = calloc(connections, sizeof *idle);
    broken = calloc(connections, sizeof *broken);
    epoll = epoll_create1(0);
    if (!planned || connections < 1 || !outcomes || !all || !idle || !broken) fail("nothing to do");
    /* Otherwise each wait would be 50 microseconds too long. */
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    for (int each = 0; each < connections; each++)
        if (!open_connection(each)) fail("connect");
    double start = now() + LEAD;
    size_t longest = run(start, atof(words[6]));
    double elapsed = now() - start;
    FILE *out = fopen(words[7], "wb");
    if (!out || fwrite(outcomes, sizeof *outcomes, planned, out) != planned || fclose(out)) fail(words[7]);
    printf("%f %zu %d %f\n", elapsed, longest, reopened, start);
    return 0;
}
