/* A Modbus TCP server that costs next to nothing: the field side of the benches.
 *
 * One process and one core serve many ports and every unit id on each, function codes 1 to 4, with values that change
 * on every scan and that anybody can check. A *round* of a unit begins with each request whose table and address are
 * not behind those of the request before it, so a scan of several blocks sees one round number. In round r:
 *
 *   float32 at register pair p (registers 2p and 2p+1, high word first), counter:  (p mod 16000) * 1000 + r mod 1000
 *                                                                        wave:     100 * sin(2 pi ((r + 16 p) mod 1024) / 1024)
 *   bit at address a:                                                               (a + r) mod 2
 *   registers 65000 to 65003:     the time of the answer, UTC, nanoseconds since 1970, as one uint64, high word first
 *   registers 65004 to 65007:     r itself, as one uint64, high word first
 *
 *   fast_modbus PORTS FIRST_PORT counter|wave
 *
 * FIRST_PORT 0 picks free ports. It says "ready PORT PORT ..."; a line "stats" on standard input is answered by "ok REQUESTS
 * CONNECTIONS", a line "rounds" by "ok R R ...", the last round of unit 1 on each port, a line "answered N" by "ok T T ...": when the
 * round r of unit 1 on the N-th port (from 0) was last answered by function code 3, at place r mod 4000; UTC, nanoseconds since 1970,
 * 0 for none. It ends when standard input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PORTS = 2000, MAX_FDS = 1 << 16, MAX_FRAME = 260, PERIOD = 1024, STAMP = 65000, KEPT = 4000 };

typedef struct { uint32_t round, at; } unit_t;                         /* at: table and address of the last request */
typedef struct { int port; unsigned length; uint8_t bytes[4096]; } client_t; /* bytes: the part of a request so far */

static unit_t units[MAX_PORTS][256];
static uint64_t answered[MAX_PORTS][KEPT];
static client_t *clients[MAX_FDS];
static int listeners[MAX_FDS]; /* port index + 1 of a listening descriptor */
static uint32_t wave[PERIOD];  /* float32 bits */
static int waves, poller, connections;
static unsigned long long requests;

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint32_t pair_at(uint32_t pair, uint32_t round) {
    return waves ? wave[(round + 16 * pair) % PERIOD] : bits_of((float)(pair % 16000 * 1000 + round % 1000));
}

static void fill_registers(uint8_t *out, uint32_t address, uint32_t count, uint32_t round) {
    uint32_t i = 0;
    for (; i < count && (address + i) % 2; i++) { /* an odd start: the low half of a pair */
        uint16_t low = htons(pair_at((address + i) / 2, round) & 0xFFFF);
        memcpy(out + 2 * i, &low, 2);
    }
    for (; i + 1 < count; i += 2) {
        uint32_t pair = htonl(pair_at((address + i) / 2, round));
        memcpy(out + 2 * i, &pair, 4);
    }
    if (i < count) {
        uint16_t high = htons(pair_at((address + i) / 2, round) >> 16);
        memcpy(out + 2 * i, &high, 2);
    }
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

static void fill_stamp(uint8_t *out, uint32_t address, uint32_t count, uint32_t round) {
    uint64_t told[2] = {now_ns(), round};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = address + i - STAMP;
        uint16_t value = word < 8 ? htons(told[word / 4] >> (48 - 16 * (word % 4)) & 0xFFFF) : 0;
        memcpy(out + 2 * i, &value, 2);
    }
}

static unsigned answer(int port, const uint8_t *request, uint8_t *out) { /* the length of the answer */
    uint8_t unit_id = request[6], function = request[7];
    uint32_t address = request[8] << 8 | request[9], count = request[10] << 8 | request[11];
    uint32_t most = function <= 2 ? 2000 : 125, here = (uint32_t)function << 16 | address;
    unsigned body;
    memcpy(out, request, 8);
    requests++;
    if (function < 1 || function > 4 || !count || count > most || address + count > 65536) {
        out[7] |= 0x80;
        out[8] = function < 1 || function > 4 ? 1 : count && count <= most ? 2 : 3;
        body = 1;
    } else {
        unit_t *unit = &units[port][unit_id];
        if (!unit->at || here <= unit->at) unit->round++;
        unit->at = here;
        if (unit_id == 1 && function == 3) answered[port][unit->round % KEPT] = now_ns();
        out[8] = function <= 2 ? (count + 7) / 8 : count * 2;
        if (function <= 2) memset(out + 9, (address + unit->round) % 2 ? 0x55 : 0xAA, out[8]);
        else {
            uint32_t before = address < STAMP ? STAMP - address < count ? STAMP - address : count : 0;
            fill_registers(out + 9, address, before, unit->round);
            fill_stamp(out + 9 + 2 * before, address + before, count - before, unit->round);
        }
        body = 1 + out[8];
    }
    out[4] = (body + 2) >> 8;
    out[5] = (body + 2) & 0xFF;
    return 8 + body;
}

static void hang_up(int fd) {
    free(clients[fd]);
    clients[fd] = NULL;
    close(fd);
    connections--;
}

static void serve(int fd) {
    static uint8_t out[64 * (MAX_FRAME + 8)];
    client_t *client = clients[fd];
    ssize_t n = recv(fd, client->bytes + client->length, sizeof client->bytes - client->length, 0);
    if (n <= 0) { hang_up(fd); return; }
    client->length += n;
    unsigned done = 0, filled = 0;
    while (client->length - done >= 12 && filled < sizeof out - MAX_FRAME - 8) {
        const uint8_t *request = client->bytes + done;
        if ((request[4] << 8 | request[5]) != 6) { hang_up(fd); return; } /* only reads are served */
        filled += answer(client->port, request, out + filled);
        done += 12;
    }
    memmove(client->bytes, client->bytes + done, client->length -= done);
    if (filled && send(fd, out, filled, MSG_NOSIGNAL) != (ssize_t)filled) hang_up(fd);
}

static void welcome(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FDS) { close(fd); return; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        clients[fd] = calloc(1, sizeof(client_t));
        clients[fd]->port = listeners[listener] - 1;
        connections++;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
    }
}

static void open_port(int index, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) || listen(fd, 64)) { perror("listen"); exit(1); }
    getsockname(fd, (struct sockaddr *)&at, &size);
    listeners[fd] = index + 1;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
    printf(" %d", ntohs(at.sin_port));
}

static void tell(int ports) {
    char line[256] = "";
    if (read(0, line, sizeof line - 1) <= 0) exit(0);
    printf("ok");
    if (line[0] == 'r')
        for (int port = 0; port < ports; port++) printf(" %u", units[port][1].round);
    else if (line[0] == 'a') {
        int port = atoi(line + sizeof "answered");
        for (int at = 0; at < KEPT && port >= 0 && port < ports; at++) printf(" %llu", (unsigned long long)answered[port][at]);
    } else
        printf(" %llu %d", requests, connections);
    puts("");
    fflush(stdout);
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc != 4 || atoi(argv[1]) < 1 || atoi(argv[1]) > MAX_PORTS) {
        fprintf(stderr, "usage: %s PORTS FIRST_PORT counter|wave\n", argv[0]);
        return 2;
    }
    int ports = atoi(argv[1]), first = atoi(argv[2]);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    waves = !strcmp(argv[3], "wave");
    for (int i = 0; i < PERIOD; i++) wave[i] = bits_of((float)(100 * sin(2 * M_PI * i / PERIOD)));
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &(struct epoll_event){.events = EPOLLIN, .data.fd = 0});
    printf("ready");
    for (int i = 0; i < ports; i++) open_port(i, first ? first + i : 0);
    puts("");
    fflush(stdout);
    for (struct epoll_event events[256];;) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) tell(ports);
            else if (listeners[fd]) welcome(fd);
            else if (clients[fd]) serve(fd);
        }
    }
}
