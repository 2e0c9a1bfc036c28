/* The floor: what one request costs when there is no HTTP parser, no Python and no choice to make.
 *
 *     floor PORT REQUEST_BODY RESPONSE_BODY BLOCKS CLOSE
 *
 * One epoll loop answers each request with the same bytes. It finds the end of a head, skips REQUEST_BODY bytes after it
 * and sends RESPONSE_BODY bytes: at once, or, when BLOCKS is not 0, as that many chunks, each with a send of its own.
 * CLOSE ends the connection after each response. Nothing else is checked: it is a yardstick, not a server. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 4096, BUFFER = 32768, EVENTS = 256 };

static struct { size_t used; char bytes[BUFFER]; } requests[MAX_FD];
static char *response;
static size_t head_length, response_length, block_length;
static size_t request_body;
static int blocks, closes;

static int send_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = { fd, POLLOUT, 0 };
            poll(&wait, 1, 1000);
        } else if (sent < 0) {
            return -1;
        } else {
            bytes += sent;
            length -= (size_t)sent;
        }
    }
    return 0;
}

static int answer(int fd)
{
    if (blocks == 0)
        return send_all(fd, response, response_length);
    if (send_all(fd, response, head_length) < 0)
        return -1;
    for (int i = 0; i < blocks; i++)
        if (send_all(fd, response + head_length, block_length) < 0)
            return -1;
    return send_all(fd, "0\r\n\r\n", 5);
}

/* Answers what is complete; -1 when the connection is over. */
static int serve(int fd)
{
    for (;;) {
        char *buffer = requests[fd].bytes;
        size_t *used = &requests[fd].used;
        size_t room = BUFFER - *used;
        ssize_t got = recv(fd, buffer + *used, room, 0);
        if (got <= 0)
            return got < 0 && errno == EAGAIN ? 0 : -1;
        *used += (size_t)got;
        char *end;
        while ((end = memmem(buffer, *used, "\r\n\r\n", 4)) != NULL) {
            size_t whole = (size_t)(end - buffer) + 4 + request_body;
            if (*used < whole)
                break;
            if (answer(fd) < 0 || closes)
                return -1;
            memmove(buffer, buffer + whole, *used - whole);
            *used -= whole;
        }
        /* Less than there was room for: the socket is empty, and the edge will come again. */
        if ((size_t)got < room)
            return 0;
    }
}

static void make_response(size_t body)
{
    const char *start = "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Fri, 20 Nov 2026 07:37:16 GMT\r\n";
    const char *connection = closes ? "close" : "keep-alive";
    response = malloc(body + 1024);
    if (blocks == 0) {
        head_length = (size_t)sprintf(response, "%sConnection: %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                                      start, connection, body);
        memset(response + head_length, 'x', body);
        response_length = head_length + body;
    } else {
        size_t block = body / (size_t)blocks;
        head_length = (size_t)sprintf(response, "%sConnection: %s\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
                                      start, connection);
        char *at = response + head_length;
        int size = sprintf(at, "%zX\r\n", block);
        memset(at + size, 'x', block);
        memcpy(at + size + block, "\r\n", 2);
        block_length = (size_t)size + block + 2;
    }
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    request_body = (size_t)atol(argv[2]);
    blocks = atoi(argv[4]);
    closes = atoi(argv[5]);
    make_response((size_t)atol(argv[3]));

    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1])) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 2048) < 0) {
        perror("floor");
        return 1;
    }
    int loop = epoll_create1(0);
    struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, events[EVENTS];
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(loop, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (serve(fd) < 0)
                    close(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (fd >= MAX_FD) {
                    close(fd);
                    continue;
                }
                requests[fd].used = 0;
                /* Read at once: most connections bring their request along. */
                if (serve(fd) < 0) {
                    close(fd);
                    continue;
                }
                event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
                event.data.fd = fd;
                epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
