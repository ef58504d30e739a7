// What the subcommands share: the table of commands, errors on standard error, progress on a terminal.
#pragma once
#include "base/err.h"

// Exit statuses of every command.
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
  const char *name;
  const char *usage;   // after "sluice NAME "
  const char *summary; // one line
  int (*run)(int argc, char **argv); // argv[0] is the command's name; returns an exit status
};

// Each lives in cli/<name>.c; usage and summary stand in main.c's table.
int cmd_decrypt(int argc, char **argv);
int cmd_encrypt(int argc, char **argv);
int cmd_index(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_load(int argc, char **argv);
int cmd_rotate(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_version(int argc, char **argv);

// cli_line prints "sluice: text" to standard error: every line that a command writes there, for it leaves no control characters in it.
void cli_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// cli_error prints "sluice: SUBJECT: text" to standard error and returns EXIT_FAILED. SUBJECT is usually a file name.
int cli_error(const char *subject, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// cli_error_diag prints "sluice: SUBJECT: what (at byte N, box …)" and returns EXIT_FAILED.
int cli_error_diag(const char *subject, const struct diag *d);

// cli_error_write says what was not done to a file and why, by errno; of a symbolic link that leads nowhere, what to do.
int cli_error_write(const char *path, const char *what, int why);

// cli_error_source is the same for a clear input. Where its packets are right and only the file around them is not, the line ends
// with what makes one that is.
int cli_error_source(const char *subject, const struct diag *d);

// cli_fault_file gives the path of the file that a fault lies in: in a folder that of its part, from whose start d->at counts then;
// else `path`. Both could be opened, so they are no longer than this.
enum { CLI_FAULT_FILE = 4096 + 256 };
struct media_source;
void cli_fault_file(char out[CLI_FAULT_FILE], const char *path, const struct media_source *m, struct diag *d);

// cli_wants_help says whether an argument is -h or --help.
bool cli_wants_help(const char *arg);

// cli_arg takes the next argument of a command: an operand, or an option of the table as `--name VALUE`, `--name=VALUE`, `-c VALUE`
// or `-cVALUE`, wherever it stands. Behind `--` all are operands; `-` is one. Returns the option's place in the table (its value in
// a->value), or one of the numbers below; ARG_WRONG has been told.
struct cli_option {
  const char *name; // NULL ends the table
  char letter;      // short form, 0: none
  bool has_value;
};
struct cli_args {
  const char *command;
  int argc;
  char **argv;
  const struct cli_option *options;
  int at; // 1 to begin with
  bool only_operands;
  const char *value; // of the option, or the operand
  const char *(*more)(unsigned i); // names of options that are read elsewhere, for who mistypes one; NULL ends them, or is there in place of it
};
enum { ARG_END = -1, ARG_OPERAND = -2, ARG_HELP = -3, ARG_WRONG = -4 };
int cli_arg(struct cli_args *a);

// cli_usage prints "sluice NAME: text" and how to get help, and returns EXIT_USAGE.
int cli_usage(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// cli_error_config prints why config_load failed and returns EXIT_USAGE, or EXIT_FAILED where the file is at fault.
struct config_error;
int cli_error_config(const struct config_error *e);

// cli_secret_line reads the one line of a file that holds a key as text, without its line end: what other users of the machine
// must not see among the arguments. False: said why. Wipe it after use.
enum { CLI_SECRET = 128 };
bool cli_secret_line(char out[CLI_SECRET], const char *path);

// cli_same_file says whether two paths lead to one regular file, by links too.
bool cli_same_file(const char *a, const char *b);

// cli_out_spares says whether `out` is none of the files that an option of the arguments names. It would take the place of a key
// of which there may be no other copy. False: said so.
bool cli_out_spares(struct cli_args a, int option, const char *out);

// cli_help prints usage, summary and `options` (already laid out, may be NULL) to standard output; returns EXIT_DONE.
int cli_help(const char *name, const char *options);

// Progress on standard error, only when it is a terminal: a bar redrawn at most ten times a second.
struct progress {
  const char *label;
  uint64_t total;   // in the unit that `progress_set` counts
  uint64_t last_ns; // when it was drawn
  bool on, drawn;
};

void progress_start(struct progress *p, const char *label, uint64_t total);
void progress_set(struct progress *p, uint64_t done);
void progress_end(struct progress *p); // clears the line; safe when nothing was drawn

// cli_kernel picks the AES kernels for this process, once: SLUICE_KERNEL narrows the choice. On an unknown or unusable
// name it prints one line and returns NULL.
struct aes_ops;
const struct aes_ops *cli_kernel(void);
