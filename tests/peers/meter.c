/* An energy meter: one unit id on a serial line, answered by libmodbus. A frame is whole when its checksum is right,
 * and silence ends what is none: whatever a scan may ask, known or not, leaves the meter ready for the next request.
 * (libmodbus_server.c tells frames of several unit ids by their lengths, and loses its step at a function that it does not know.)
 *
 * Steered by lines on standard input, each answered by "ok" or "error"; ends when standard input ends.
 *
 *   meter PATH BAUD UNIT     RTU on a serial port, no parity; says "ready"
 *
 *   input A V...             values of input registers from address A on
 */
#include <errno.h>
#include <modbus.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { REGISTERS = 65536, MAX_LINE = 65536, SILENCE_MS = 100 };

static modbus_mapping_t *image;

static const char *obey(char *line) {
    char *verb = strtok(line, " "), *word = strtok(NULL, " ");
    if (!verb || strcmp(verb, "input") || !word) return "error unknown command";
    int at = atoi(word);
    while ((word = strtok(NULL, " "))) {
        if (at < 0 || at >= REGISTERS) return "error address";
        image->tab_input_registers[at++] = atoi(word);
    }
    return "ok";
}

static uint16_t crc16(const uint8_t *bytes, int length) {
    uint16_t crc = 0xFFFF;
    for (int i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xA001 : crc >> 1;
    }
    return crc;
}

static int is_whole(const uint8_t *frame, int length) {
    return length >= 4 && crc16(frame, length - 2) == (frame[length - 2] | frame[length - 1] << 8);
}

static int receive(int fd, uint8_t *frame) { /* bytes until they are a frame, or until the line falls silent */
    struct pollfd line = {fd, POLLIN, 0};
    int length = 0, n;
    do {
        n = read(fd, frame + length, MODBUS_RTU_MAX_ADU_LENGTH - length);
        if (n > 0) length += n;
    } while (n > 0 && !is_whole(frame, length) && length < MODBUS_RTU_MAX_ADU_LENGTH && poll(&line, 1, SILENCE_MS) > 0);
    return length;
}

int main(int argc, char **argv) {
    static char line[MAX_LINE];
    uint8_t request[MODBUS_RTU_MAX_ADU_LENGTH];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc < 4) { fprintf(stderr, "usage: %s PATH BAUD UNIT\n", argv[0]); return 2; }
    modbus_t *meter = modbus_new_rtu(argv[1], atoi(argv[2]), 'N', 8, 1);
    modbus_set_slave(meter, atoi(argv[3]));
    modbus_set_response_timeout(meter, 0, 1000); /* it sleeps so long before it says "illegal data address"; 0.5 s by default */
    image = modbus_mapping_new(0, 0, REGISTERS, REGISTERS);
    if (modbus_connect(meter)) { fprintf(stderr, "%s: %s\n", argv[1], modbus_strerror(errno)); return 1; }
    puts("ready");
    fflush(stdout);
    struct pollfd polled[2] = {{0, POLLIN, 0}, {modbus_get_socket(meter), POLLIN, 0}};
    while (poll(polled, 2, -1) >= 0 || errno == EINTR) {
        if (polled[0].revents) {
            if (!fgets(line, sizeof line, stdin)) return 0;
            line[strcspn(line, "\n")] = 0;
            puts(obey(line));
            fflush(stdout);
        }
        if (polled[1].revents & POLLIN) {
            int length = receive(polled[1].fd, request);
            if (is_whole(request, length) && request[0] == atoi(argv[3])) modbus_reply(meter, request, length, image);
        }
    }
    return 1;
}
