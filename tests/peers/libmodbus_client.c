/* A Modbus client on libmodbus: somebody else's C implementation, for our server to be tested by.
 *
 *   libmodbus_client PORT UNIT      connects to 127.0.0.1; says "ready"
 *
 * One-line commands on standard input, each answered by one line ("ok ..." or "error TEXT"):
 *   read TABLE A N          "ok V..."; TABLE is coil, discrete, input or holding
 *   write TABLE A V...      one value by function 5 or 6, several by 15 or 16
 *   unit U                  talk to another unit id
 *   again                   connect anew
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 1 << 16, MOST = 2000 };

static modbus_t *bus;

static void failed(void) { printf("error %s\n", modbus_strerror(errno)); }

static void reading(const char *table, int address, int count) {
    static uint8_t bits[MOST];
    static uint16_t words[MOST];
    int got, is_bits = table[0] == 'c' || table[0] == 'd';
    if (count < 1 || count > MOST) { printf("error count\n"); return; }
    switch (table[0]) {
        case 'c': got = modbus_read_bits(bus, address, count, bits); break;
        case 'd': got = modbus_read_input_bits(bus, address, count, bits); break;
        case 'i': got = modbus_read_input_registers(bus, address, count, words); break;
        default: got = modbus_read_registers(bus, address, count, words);
    }
    if (got != count) { failed(); return; }
    printf("ok");
    for (int at = 0; at < count; at++) printf(" %d", is_bits ? bits[at] : words[at]);
    printf("\n");
}

static void writing(const char *table, int address, char *rest) {
    static uint8_t bits[MOST];
    static uint16_t words[MOST];
    int count = 0, done, is_bits = table[0] == 'c';
    for (char *word = strtok(rest, " "); word && count < MOST; word = strtok(NULL, " "), count++) {
        bits[count] = (uint8_t)atoi(word);
        words[count] = (uint16_t)atoi(word);
    }
    if (count == 1) done = is_bits ? modbus_write_bit(bus, address, bits[0]) : modbus_write_register(bus, address, words[0]);
    else done = is_bits ? modbus_write_bits(bus, address, count, bits) : modbus_write_registers(bus, address, count, words);
    if (done != count) failed(); else printf("ok\n");
}

int main(int argc, char **argv) {
    static char line[MAX_LINE];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 3 || !(bus = modbus_new_tcp("127.0.0.1", atoi(argv[1])))) return 1;
    modbus_set_slave(bus, atoi(argv[2]));
    modbus_set_response_timeout(bus, 10, 0);
    if (modbus_connect(bus)) { fprintf(stderr, "%s\n", modbus_strerror(errno)); return 1; }
    printf("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        char word[16], table[16];
        int address, count, used = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "read %15s %d %d", table, &address, &count) == 3) reading(table, address, count);
        else if (sscanf(line, "write %15s %d %n", table, &address, &used) == 2 && used) writing(table, address, line + used);
        else if (sscanf(line, "unit %d", &count) == 1) { modbus_set_slave(bus, count); printf("ok\n"); }
        else if (sscanf(line, "%15s", word) == 1 && !strcmp(word, "again")) {
            modbus_close(bus);
            if (modbus_connect(bus)) failed(); else printf("ok\n");
        } else printf("error command\n");
    }
    return 0;
}
