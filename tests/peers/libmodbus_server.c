/* A Modbus server on libmodbus: somebody else's C implementation, for our driver to be tested against.
 *
 * Every request is judged and answered by libmodbus itself (modbus_reply): addresses, counts, function codes, what a
 * write does to the registers. This file only adds what field devices do beside that: unit ids that are silent or
 * broken, holes, values that cannot be written, clamped values, small maximums. It is steered by one-line commands on
 * standard input, each answered by one line ("ok ..." or "error ..."), and ends when standard input ends.
 *
 *   libmodbus_server tcp PORT         Modbus TCP on 127.0.0.1, 0 picks a port; says "ready PORT"
 *   libmodbus_server rtu-tcp PORT     RTU frames over TCP
 *   libmodbus_server rtu PATH BAUD    RTU on a serial port; says "ready 0"
 *
 * Commands (TABLE is coil, discrete, input or holding; numbers in decimal):
 *   unit U                     unit id U exists, all zero
 *   set U TABLE A V...         values from address A on
 *   get U TABLE A N            "ok V..."
 *   hole U TABLE FIRST LAST    requests that touch it are answered "illegal data address"
 *   keep U FIRST LAST          writes to these holding registers are acknowledged and change nothing
 *   clamp U FIRST LAST MAX     what is written to these holding registers is cut to MAX
 *   most U N                   reads of more than N registers are answered "illegal data value"
 *   fail U CODE                every request is answered with exception CODE; 0 mends it
 *   silent U 0|1               no answer at all
 *   requests                   "ok U/FC/A/N ..." of every request since the last time this was asked
 *   connections                "ok N" clients connected now
 *   kick                       close every connection
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { COIL, DISCRETE, INPUT, HOLDING, TABLES };
enum { ADDRESSES = 65536, MAX_CLIENTS = 600, MAX_RULES = 64, MAX_SEEN = 8192, MAX_LINE = 1 << 20 };

typedef struct { int table, first, last, max; } rule_t;

typedef struct {
    modbus_mapping_t *image;
    rule_t holes[MAX_RULES], kept[MAX_RULES], clamped[MAX_RULES];
    int nholes, nkept, nclamped;
    int most, fail, silent;
} unit_t;

typedef struct { int unit, function, address, count; } seen_t;

typedef struct { uint8_t bytes[2 * MODBUS_MAX_ADU_LENGTH]; int length; } pending_t;

static unit_t *units[256];
static seen_t seen[MAX_SEEN];
static int nseen;
static struct pollfd polled[MAX_CLIENTS + 2]; /* 0: stdin, 1: listener (or -1), then clients or the serial port */
static pending_t pending[MAX_CLIENTS + 2];    /* bytes of a frame that is not whole yet, RTU only */
static int npolled = 2;
static modbus_t *ctx;
static int rtu;

static int be16(const uint8_t *at) { return at[0] << 8 | at[1]; }

static unit_t *unit_of(int id, int create) {
    if (id < 0 || id > 255) return NULL;
    if (!units[id] && create) {
        units[id] = calloc(1, sizeof(unit_t));
        units[id]->image = modbus_mapping_new(ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES);
    }
    return units[id];
}

/* ------------------------------------------------------------------------------------------------ requests */

static int table_of(int function) {
    switch (function) {
    case 1: case 5: case 15: return COIL;
    case 2: return DISCRETE;
    case 4: return INPUT;
    default: return HOLDING;
    }
}

static int in_hole(const unit_t *unit, int table, int first, int count) {
    for (int i = 0; i < unit->nholes; i++) {
        const rule_t *hole = &unit->holes[i];
        if (hole->table == table && first <= hole->last && first + count - 1 >= hole->first) return 1;
    }
    return 0;
}

static void restore_kept(const unit_t *unit, const uint16_t *before) {
    for (int i = 0; i < unit->nkept; i++)
        for (int a = unit->kept[i].first; a <= unit->kept[i].last; a++) unit->image->tab_registers[a] = before[a];
    for (int i = 0; i < unit->nclamped; i++)
        for (int a = unit->clamped[i].first; a <= unit->clamped[i].last; a++)
            if (unit->image->tab_registers[a] > unit->clamped[i].max) unit->image->tab_registers[a] = unit->clamped[i].max;
}

static void answer(const uint8_t *request, int length) {
    static uint16_t before[ADDRESSES];
    int header = modbus_get_header_length(ctx);
    int id = request[header - 1], function = request[header], address = be16(request + header + 1);
    int single = function == 5 || function == 6 || function == 22;
    int count = single ? 1 : be16(request + header + 3);
    unit_t *unit = unit_of(id, 0);
    int exception = 0;

    if (nseen < MAX_SEEN) seen[nseen++] = (seen_t){id, function, address, count};
    if (!unit || unit->silent) return;
    if (unit->fail) exception = unit->fail;
    else if (in_hole(unit, table_of(function), address, count)) exception = MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS;
    else if (unit->most && (function == 3 || function == 4) && count > unit->most) exception = MODBUS_EXCEPTION_ILLEGAL_DATA_VALUE;

    if (rtu) modbus_set_slave(ctx, id);
    if (exception) {
        modbus_reply_exception(ctx, request, exception);
        return;
    }
    memcpy(before, unit->image->tab_registers, sizeof before);
    modbus_reply(ctx, request, length, unit->image);
    restore_kept(unit, before);
}

/* ------------------------------------------------------------------------------------------------ RTU frames */
/* libmodbus serves one unit id for each serial line, so frames of several are cut out here and answered by it. */

static uint16_t crc16(const uint8_t *bytes, int length) {
    uint16_t crc = 0xFFFF;
    for (int i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xA001 : crc >> 1;
    }
    return crc;
}

static int rtu_length(const uint8_t *bytes, int have) { /* of the request that begins here; 0: more bytes are needed */
    if (have < 2) return 0;
    switch (bytes[1]) {
    case 15: case 16: return have < 7 ? 0 : 9 + bytes[6];
    case 22: return 10;
    case 23: return have < 11 ? 0 : 13 + bytes[10];
    default: return 8;
    }
}

static int serve_rtu(int slot) {
    pending_t *got = &pending[slot];
    int n = read(polled[slot].fd, got->bytes + got->length, sizeof got->bytes - got->length);
    if (n <= 0) return -1;
    got->length += n;
    for (;;) {
        int length = rtu_length(got->bytes, got->length);
        if (!length || got->length < length) break;
        if (length > MODBUS_MAX_ADU_LENGTH) { got->length = 0; break; }
        uint16_t crc = crc16(got->bytes, length - 2);
        if (got->bytes[length - 2] != (crc & 0xFF) || got->bytes[length - 1] != crc >> 8) { got->length = 0; break; } /* noise */
        modbus_set_socket(ctx, polled[slot].fd);
        answer(got->bytes, length);
        memmove(got->bytes, got->bytes + length, got->length -= length);
    }
    return got->length == (int)sizeof got->bytes ? -1 : 0;
}

static int serve_tcp(int slot) {
    uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
    modbus_set_socket(ctx, polled[slot].fd);
    int length = modbus_receive(ctx, request);
    if (length > 0) answer(request, length);
    return length < 0 ? -1 : 0;
}

static void hang_up(int slot) {
    close(polled[slot].fd);
    npolled--;
    polled[slot] = polled[npolled];
    pending[slot] = pending[npolled];
}

static void welcome(void) {
    int fd = accept(polled[1].fd, NULL, NULL), on = 1;
    if (fd < 0) return;
    if (npolled == MAX_CLIENTS + 2) { close(fd); return; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pending[npolled].length = 0;
    polled[npolled++] = (struct pollfd){fd, POLLIN, 0};
}

/* ------------------------------------------------------------------------------------------------ commands */

static int next_int(void) {
    char *word = strtok(NULL, " ");
    return word ? atoi(word) : -1;
}

static int next_table(void) {
    static const char *names[TABLES] = {"coil", "discrete", "input", "holding"};
    char *word = strtok(NULL, " ");
    for (int i = 0; word && i < TABLES; i++)
        if (!strcmp(word, names[i])) return i;
    return -1;
}

static int peek(const modbus_mapping_t *image, int table, int address) {
    switch (table) {
    case COIL: return image->tab_bits[address];
    case DISCRETE: return image->tab_input_bits[address];
    case INPUT: return image->tab_input_registers[address];
    default: return image->tab_registers[address];
    }
}

static void poke(modbus_mapping_t *image, int table, int address, int value) {
    switch (table) {
    case COIL: image->tab_bits[address] = value != 0; break;
    case DISCRETE: image->tab_input_bits[address] = value != 0; break;
    case INPUT: image->tab_input_registers[address] = value; break;
    default: image->tab_registers[address] = value;
    }
}

static const char *add_rule(rule_t *rules, int *count, int table, int with_max) {
    int first = next_int(), last = next_int(), max = with_max ? next_int() : 0;
    if (table < 0 || first < 0 || last < first || last >= ADDRESSES || *count == MAX_RULES) return "error bad range";
    rules[(*count)++] = (rule_t){table, first, last, max};
    return "ok";
}

static const char *set_values(unit_t *unit) {
    int table = next_table(), address = next_int();
    if (table < 0) return "error unknown table";
    for (char *word = strtok(NULL, " "); word; word = strtok(NULL, " "), address++) {
        if (address < 0 || address >= ADDRESSES) return "error address";
        poke(unit->image, table, address, atoi(word));
    }
    return "ok";
}

static const char *get_values(unit_t *unit) {
    int table = next_table(), address = next_int(), count = next_int();
    if (table < 0 || address < 0 || count < 0 || address + count > ADDRESSES) return "error range";
    printf("ok");
    for (int i = 0; i < count; i++) printf(" %d", peek(unit->image, table, address + i));
    return "";
}

static const char *tell_requests(void) {
    printf("ok");
    for (int i = 0; i < nseen; i++) printf(" %d/%d/%d/%d", seen[i].unit, seen[i].function, seen[i].address, seen[i].count);
    nseen = 0;
    return "";
}

static const char *of_unit(const char *verb) {
    int id = next_int();
    unit_t *unit = unit_of(id, !strcmp(verb, "unit"));
    if (!unit) return "error no such unit";
    if (!strcmp(verb, "unit")) return "ok";
    if (!strcmp(verb, "set")) return set_values(unit);
    if (!strcmp(verb, "get")) return get_values(unit);
    if (!strcmp(verb, "hole")) return add_rule(unit->holes, &unit->nholes, next_table(), 0);
    if (!strcmp(verb, "keep")) return add_rule(unit->kept, &unit->nkept, HOLDING, 0);
    if (!strcmp(verb, "clamp")) return add_rule(unit->clamped, &unit->nclamped, HOLDING, 1);
    if (!strcmp(verb, "most")) return unit->most = next_int(), "ok";
    if (!strcmp(verb, "fail")) return unit->fail = next_int(), "ok";
    if (!strcmp(verb, "silent")) return unit->silent = next_int(), "ok";
    return "error unknown command";
}

static const char *obey(char *line) {
    char *verb = strtok(line, " ");
    if (!verb) return "error empty";
    if (!strcmp(verb, "requests")) return tell_requests();
    if (!strcmp(verb, "connections")) return printf("ok %d", npolled - 2), "";
    if (strcmp(verb, "kick")) return of_unit(verb);
    while (npolled > 2) hang_up(2);
    return "ok";
}

static void read_commands(void) {
    static char line[MAX_LINE];
    static int length;
    int n = read(0, line + length, sizeof line - 1 - length);
    if (n <= 0) exit(0);
    length += n;
    line[length] = 0;
    for (char *end; (end = strchr(line, '\n'));) {
        *end = 0;
        puts(obey(line));
        fflush(stdout);
        length -= end + 1 - line;
        memmove(line, end + 1, length + 1);
    }
}

/* ------------------------------------------------------------------------------------------------ start */

static int listen_on(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, size) || listen(fd, 512)) { perror("listen"); exit(1); }
    getsockname(fd, (struct sockaddr *)&at, &size);
    printf("ready %d\n", ntohs(at.sin_port));
    return fd;
}

static void open_serial(const char *path, int baud) {
    ctx = modbus_new_rtu(path, baud, 'N', 8, 1);
    modbus_set_slave(ctx, 1);
    if (modbus_connect(ctx)) { fprintf(stderr, "%s: %s\n", path, modbus_strerror(errno)); exit(1); }
    polled[npolled++] = (struct pollfd){modbus_get_socket(ctx), POLLIN, 0};
    printf("ready 0\n");
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 3) { fprintf(stderr, "usage: %s tcp PORT | rtu-tcp PORT | rtu PATH BAUD\n", argv[0]); return 2; }
    rtu = strcmp(argv[1], "tcp") != 0;
    polled[0] = (struct pollfd){0, POLLIN, 0};
    polled[1] = (struct pollfd){-1, POLLIN, 0};
    if (!strcmp(argv[1], "rtu")) {
        open_serial(argv[2], argc > 3 ? atoi(argv[3]) : 9600);
    } else {
        ctx = rtu ? modbus_new_rtu("/dev/null", 9600, 'N', 8, 1) : modbus_new_tcp("127.0.0.1", 0);
        polled[1].fd = listen_on(atoi(argv[2]));
    }
    modbus_set_response_timeout(ctx, 0, 1000); /* it sleeps so long after each "illegal data value"; 0.5 s by default */
    fflush(stdout);
    for (;;) {
        if (poll(polled, npolled, -1) < 0) continue;
        for (int slot = npolled - 1; slot >= 2; slot--) {
            if (!polled[slot].revents) continue;
            if ((rtu ? serve_rtu : serve_tcp)(slot) < 0) hang_up(slot);
        }
        if (polled[1].revents & POLLIN) welcome();
        if (polled[0].revents) read_commands();
    }
}
