// Sealing TLS records in the kernel (Documentation/networking/tls.rst): a response then goes to the socket as it is, and what
// stands in a file with sendfile. TLS 1.3 with AES-GCM, the sending side alone; what comes in is opened here as always.
#pragma once
#include "net/tls.h"

// ktls_here asks the kernel; false: errno says why not.
bool ktls_here(void);

// ktls_prepare makes every connection of a set keep the secret that ktls_start needs. Before its first connection.
// False: no memory.
bool ktls_prepare(struct tls_set *s);

// ktls_start hands the sending side of a connection to its socket: once everything that tls_write and tls_handshake gave is on
// its way, between two responses. From then on plain bytes are sent, tls_write and tls_close must not be called, and a
// connection for which tls_read leaves something in `out`, or which is then stale, has to be closed. false: it goes on as it
// was, as one does whose client has asked for new keys.
bool ktls_start(struct tls_conn *c, int fd);

// ktls_stale says whether the client has asked for keys that the socket does not have.
bool ktls_stale(const struct tls_conn *c);

// ktls_close sends the close notification.
void ktls_close(int fd);
