// Inside a connection: shared by conn.c (its life) and conn_tls.c.
#pragma once
#include "server/conn.h"

void conn_close(struct conn *c);  // at once; the connection is free when nothing is armed any more
void conn_linger(struct conn *c); // the answer is out: closes when the client has ended, or after LINGER_MS
void conn_input(struct conn *c, struct bytes data); // opened bytes of requests
void conn_note_peer(struct conn *c);                // the client's address, for logs

// conn_say sends a few bytes outside of any response, sealed where needed. False: not all of them are out, and nothing can follow.
bool conn_say(struct conn *c, const char *text, size_t n);
void conn_say_goodbye(struct conn *c);                     // close_notify, where there is TLS to end
void conn_tls_input(struct conn *c, struct bytes data);
void conn_handshake_ended(struct conn *c, const char *why); // without success, unless it had not begun
