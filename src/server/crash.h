// What a core image must not hold. Keys lie in memory that is left out of dumps (server/keyring.h), but code that uses them
// leaves pieces on stacks and in vector registers. So the stacks of threads that touch keys are left out too, and a fatal
// signal clears the vector registers of all of them before the image is written; its backtrace goes to the log instead.
#pragma once

// crash_install catches the signals that end a process with a core image. Once, before threads start. Not under a sanitizer,
// which has handlers of its own.
void crash_install(void);

// crash_thread leaves the calling thread's stack out of core images and has its registers cleared. To be called once by each
// thread that touches keys, first thing.
void crash_thread(void);
