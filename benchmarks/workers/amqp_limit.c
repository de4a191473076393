/* Repeat as frames on a socket, and nothing more: what the broker can do on this machine.
 *
 *     amqp_limit FORM PORT VHOST IN OUT PREFETCH
 *
 * FORM is "quick" (transient, nothing is confirmed) or "safe" (persistent, inputs are settled after
 * their outputs were confirmed). One channel, one output for each input, in order: so the broker's
 * number of an output is that of its input, and what is confirmed up to a number can be settled up
 * to it. All that one read brought is answered with one write.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { METHOD = 1, HEADER = 2, BODY = 3, END = 0xCE };
enum { IN_SIZE = 1 << 20, OUT_SIZE = 4 << 20, WINDOW = 1 << 12 };

#define PAIR(class, method) ((uint32_t)(class) << 16 | (method))

static int sock;
static uint8_t in[IN_SIZE], out[OUT_SIZE];
static size_t in_length, out_length, frame_start;

static void fail(const char *what) {
    fprintf(stderr, "amqp_limit: %s\n", what);
    exit(1);
}

/* Writing. */

static void put(uint64_t value, int bytes) {
    while (bytes--)
        out[out_length++] = value >> (8 * bytes);
}

static void put_bytes(const void *data, size_t size) {
    memcpy(out + out_length, data, size);
    out_length += size;
}

static void put_short(const char *text) {
    put(strlen(text), 1);
    put_bytes(text, strlen(text));
}

static void begin(int type, int channel) {
    frame_start = out_length;
    put(type, 1);
    put(channel, 2);
    put(0, 4);
}

static void begin_method(int channel, int class, int method) {
    begin(METHOD, channel);
    put(class, 2);
    put(method, 2);
}

static void end(void) {
    size_t here = out_length;
    out_length = frame_start + 3;
    put(here - frame_start - 7, 4);
    out_length = here;
    put(END, 1);
}

static void flush(void) {
    for (size_t done = 0; done < out_length;) {
        ssize_t written = write(sock, out + done, out_length - done);
        if (written <= 0)
            fail("the connection was lost");
        done += written;
    }
    out_length = 0;
}

/* Reading. */

static uint64_t get(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    while (bytes--)
        value = value << 8 | *at++;
    return value;
}

static void fill(void) {
    ssize_t got = read(sock, in + in_length, IN_SIZE - in_length);
    if (got <= 0)
        fail("the connection was lost");
    in_length += got;
}

/* The size of the frame at a place of the buffer; 0 while it is not whole. */
static size_t whole(size_t at) {
    if (in_length - at < 8)
        return 0;
    size_t size = get(in + at + 3, 4) + 8;
    if (size > IN_SIZE)
        fail("a frame is too large");
    return in_length - at < size ? 0 : size;
}

static void forget(size_t size) {
    memmove(in, in + size, in_length - size);
    in_length -= size;
}

/* Send what was written, and wait for an answer; its payload is at in + 11 until forgotten. */
static size_t expect(uint32_t method) {
    size_t size;
    flush();
    while (!(size = whole(0)))
        fill();
    if (in[0] != METHOD || get(in + 7, 4) != method)
        fail("the broker answers something else than what was asked");
    return size;
}

static void open_connection(const char *vhost, int safe, const char *queue, int prefetch) {
    put_bytes("AMQP\0\0\x09\x01", 8);
    forget(expect(PAIR(10, 10)));
    begin_method(0, 10, 11);
    put(0, 4);
    put_short("PLAIN");
    put(12, 4);
    put_bytes("\0guest\0guest", 12);
    put_short("en_US");
    end();
    size_t size = expect(PAIR(10, 30));
    begin_method(0, 10, 31);
    put_bytes(in + 11, 6);
    put(0, 2); /* no heartbeats */
    end();
    forget(size);
    begin_method(0, 10, 40);
    put_short(vhost);
    put(0, 2);
    end();
    forget(expect(PAIR(10, 41)));
    begin_method(1, 20, 10);
    put(0, 1);
    end();
    forget(expect(PAIR(20, 11)));
    if (safe) {
        begin_method(1, 85, 10);
        put(0, 1);
        end();
        forget(expect(PAIR(85, 11)));
    }
    begin_method(1, 60, 10);
    put(0, 4);
    put(prefetch, 2);
    put(0, 1);
    end();
    forget(expect(PAIR(60, 11)));
    begin_method(1, 60, 20);
    put(0, 2);
    put_short(queue);
    put_short("limit");
    put(0, 1);
    put(0, 4);
    end();
    forget(expect(PAIR(60, 21)));
}

/* The work. */

static uint64_t taken, settled, settleable; /* numbers of messages */
static uint64_t body_left;                  /* of the message that is being passed on */
static int settle_due;
static uint8_t confirmed[WINDOW];

static void settle(void) {
    if (settled < settleable) {
        begin_method(1, 60, 80);
        put(settleable, 8);
        put(1, 1);
        end();
        settled = settleable;
    }
    settle_due = 0;
}

static void pass_on(uint64_t size, int safe, const char *target) {
    begin_method(1, 60, 40);
    put(0, 2);
    put_short("");
    put_short(target);
    put(0, 1);
    end();
    begin(HEADER, 1);
    put(60, 2);
    put(0, 2);
    put(size, 8);
    put(0x9000, 2); /* content type and delivery mode */
    put_short("application/json");
    put(safe ? 2 : 1, 1);
    end();
}

static void passed_on(int safe) {
    taken++;
    if (!safe)
        settleable = taken;
    if (settle_due)
        settle();
}

static void on_confirm(uint64_t number, int multiple) {
    for (uint64_t each = multiple ? settleable + 1 : number; each <= number; each++)
        confirmed[each % WINDOW] = 1;
    while (settleable < taken && confirmed[(settleable + 1) % WINDOW])
        confirmed[++settleable % WINDOW] = 0;
}

static void on_frame(const uint8_t *frame, size_t size, int safe, const char *target) {
    if (frame[0] == HEADER) {
        body_left = get(frame + 7 + 4, 8);
        pass_on(body_left, safe, target);
        if (!body_left)
            passed_on(safe);
    } else if (frame[0] == BODY) {
        put_bytes(frame, size);
        body_left -= size - 8;
        if (!body_left)
            passed_on(safe);
    } else if (frame[0] == METHOD) {
        switch (get(frame + 7, 4)) {
        case PAIR(60, 60): /* its number follows from the order */
            break;
        case PAIR(60, 80):
            on_confirm(get(frame + 11, 8), frame[19] & 1);
            break;
        default:
            fail("the broker refuses something");
        }
    }
}

int main(int count, char **words) {
    if (count != 7 || atoi(words[6]) >= WINDOW)
        fail("usage: amqp_limit FORM PORT VHOST IN OUT PREFETCH");
    int safe = !strcmp(words[1], "safe"), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(words[2])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    sock = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(sock, (struct sockaddr *)&address, sizeof address))
        fail("no broker listens there");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    open_connection(words[3], safe, words[4], atoi(words[6]));
    puts("running");
    fflush(stdout);
    for (;;) {
        size_t at = 0, size;
        while ((size = whole(at))) {
            on_frame(in + at, size, safe, words[5]);
            at += size;
        }
        forget(at);
        /* No method may come between the frames of one message. */
        if (body_left)
            settle_due = 1;
        else
            settle();
        if (out_length)
            flush();
        fill();
    }
}
