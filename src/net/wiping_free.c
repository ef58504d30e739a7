// BoringSSL opens TLS records in a buffer that it takes from malloc, and frees it as it is: what came in stays in freed
// memory. Programs are linked so that free, as they and BoringSSL call it, is this one (-Wl,--wrap=free); on threads that
// asked for it, it overwrites first.
#include "net/tls.h"
#include <malloc.h>

void __real_free(void *p);
void __wrap_free(void *p);

static _Thread_local bool wipes;

void tls_wipe_on_this_thread(void) { wipes = true; }

void __wrap_free(void *p) {
  if (wipes && p)
    explicit_bzero(p, malloc_usable_size(p));
  __real_free(p);
}
