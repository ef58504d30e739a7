// Documentation from the option table.
#include "server/options.h"

// `flag`: what stands on a command line where that differs from the file.
static const char *type_text(const struct option *o, bool flag) {
  switch (o->type) {
  case OPT_BOOL: return "true or false";
  case OPT_COUNT: return "number";
  case OPT_SIZE: return "size (512, 64K, 16M, 2G";
  case OPT_DURATION: return "duration (250ms, 2s, 5m, 24h, 7d)";
  case OPT_TEXT: return "text";
  case OPT_PATH: return "path";
  case OPT_ENUM: return "one of";
  case OPT_ADDRS: return "ADDR:PORT, or a list of them";
  case OPT_SCHEMES: return "list of clear, cenc, cbcs";
  case OPT_CERTS: return flag ? "CERT:KEY, or a list of them" : "list of {cert: FILE, key: FILE, ocsp: FILE}";
  case OPT_RULES: return flag ? "PREFIX=SCHEME,... (repeatable)" : "list of {prefix: NAME, schemes: [SCHEME]}";
  }
  return "";
}

static void put_type(FILE *out, const struct option *o, bool flag) {
  fputs(type_text(o, flag), out);
  if (o->type == OPT_SIZE)
    fprintf(out, "%s%s)", config_takes_on(o) ? ", on" : "", config_takes_off(o) ? ", off" : "");
  const char *const *allowed = config_allowed(o);
  for (unsigned i = 0; allowed[i]; i++)
    fprintf(out, "%s%s", i ? ", " : " ", allowed[i]);
}

static void put_amount(FILE *out, const struct option *o, uint64_t v) {
  static const struct {
    const char *suffix;
    uint64_t factor;
  } sizes[] = {{"T", 1ULL << 40}, {"G", 1ULL << 30}, {"M", 1ULL << 20}, {"K", 1ULL << 10}},
    times[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}};
  for (unsigned i = 0; v && i < 4; i++) {
    uint64_t factor = o->type == OPT_SIZE ? sizes[i].factor : o->type == OPT_DURATION ? times[i].factor : v + 1;
    if (v >= factor && v % factor == 0) {
      fprintf(out, "%llu%s", (unsigned long long)(v / factor), o->type == OPT_SIZE ? sizes[i].suffix : times[i].suffix);
      return;
    }
  }
  fprintf(out, "%llu%s", (unsigned long long)v, o->type == OPT_DURATION && v ? "ms" : "");
}

static bool has_limits(const struct option *o) {
  return o->type == OPT_COUNT || o->type == OPT_SIZE || o->type == OPT_DURATION;
}

static void put_flag(FILE *out, const struct option *o) {
  fputs("--", out);
  for (const char *p = o->name; *p; p++)
    fputc(*p == '_' ? '-' : *p, out);
}

static void put_wrapped(FILE *out, const char *text, int indent, int width) {
  int col = 0;
  while (*text) {
    int n = (int)strcspn(text, " ");
    if (col && col + 1 + n > width) {
      fputc('\n', out);
      col = 0;
    }
    if (!col)
      fprintf(out, "%*s", indent, "");
    else
      fputc(' ', out);
    fprintf(out, "%.*s", n, text);
    col += n + (col ? 1 : 0);
    text += n + (text[n] == ' ');
  }
  fputc('\n', out);
}

void config_help(FILE *out) {
  fputs("  -c, --config FILE\n      Read options from a YAML file; flags override it.\n"
        "  --check\n      Validate configuration, keys and media folder, say what is wrong, do not serve.\n",
        out);
  for (unsigned i = 0; i < NUM_OPTIONS; i++) {
    const struct option *o = &config_options[i];
    fputs("  ", out);
    put_flag(out, o);
    fputs(o->type == OPT_BOOL ? " [" : " ", out);
    put_type(out, o, true);
    fputs(o->type == OPT_BOOL ? "]\n" : "\n", out);
    put_wrapped(out, o->doc, 6, 100);
    fprintf(out, "      (default: %s)\n", *o->def ? o->def : "none");
  }
}

void config_markdown(FILE *out) {
  fputs("# Configuration\n\n"
        "`sluice serve -c sluice.yaml` reads a YAML file of `option: value` lines. Every option is also a\n"
        "flag; flags override the file. `sluice serve --check` validates everything without serving.\n\n"
        "- **Flags.** `segment_target: 2s` is `--segment-target 2s`, `ktls: false` is `--ktls false`; of\n"
        "  `true` the flag alone says the same.\n"
        "- **Lists as flags.** `--listen A --listen B` or `--listen A,B` (an empty value is an empty list),\n"
        "  `--schemes cenc,cbcs`, `--assets free/=clear,cbcs` for each rule, `--tls-certificates CERT:KEY`\n"
        "  (responses to staple are for the file alone).\n"
        "- **Reload.** `SIGHUP` validates as `--check` does and takes the new configuration over only when\n"
        "  all of it is valid, keys and certificates included. Options that are not marked *reload* need a\n"
        "  restart.\n"
        "- **Relative paths**, also those in the file, start at the working folder, not at the file's; those\n"
        "  in the keys file start at that file's folder. Errors name a file that is not there from the root.\n\n"
        "This page is generated from the option table (`src/server/options.h`) by `sluice-docs markdown`; a\n"
        "test compares them.\n\n"
        "```yaml\n"
        "media: /srv/music\n"
        "listen: 0.0.0.0:8080\n"
        "keys: /etc/sluice/keys.yaml\n"
        "cache_size: 8G\n"
        "access_log: /var/log/sluice/access.log\n"
        "assets:\n"
        "  - { prefix: free/, schemes: [clear, cbcs] }\n"
        "```\n\n"
        "| Option | Value | Default | Limits | Reload | What it does |\n|---|---|---|---|---|---|\n",
        out);
  for (unsigned i = 0; i < NUM_OPTIONS; i++) {
    const struct option *o = &config_options[i];
    fprintf(out, "| `%s` | ", o->name);
    put_type(out, o, false);
    fprintf(out, " | %s%s%s | ", *o->def ? "`" : "none", o->def, *o->def ? "`" : "");
    if (has_limits(o)) {
      put_amount(out, o, o->min);
      fputs(" to ", out);
      put_amount(out, o, o->max);
    }
    fprintf(out, " | %s | %s |\n", o->reload ? "yes" : "", o->doc);
  }
  fputs("\n## What changes old URLs\n\n"
        "Everything below an epoch is handed out as `immutable` for a year. Some changes, by SIGHUP or by a\n"
        "restart, give its URLs other bytes all the same:\n\n"
        "- here `segment_target`, `inband_pssh`, `cbcs_senc`, `cenc_iv_size` and `insecure_clearkey`;\n"
        "- in the keys file the `drm` section, another secret, and other values in a record that is there\n"
        "  already;\n"
        "- a media file that is replaced;\n"
        "- a new version of sluice, where its changelog says so.\n\n"
        "Behind a CDN old and new segments then mix (repeated or missing audio), and players with the old\n"
        "media playlist never see a new DRM system. A reload that does this is logged as a warning that names\n"
        "the option. Then:\n\n"
        "1. `sluice rotate --all` (or the prefix, or the asset whose file was replaced): new players get URLs\n"
        "   of a new epoch. With records in the keys file, add those of the next epoch first.\n"
        "2. Purge the old epochs from CDNs: `/<asset>/<scheme>/<epoch>/`.\n\n"
        "Do both on every node, when nobody is in the middle of a track if that can be chosen: who plays from\n"
        "the old epoch meets the change.\n",
        out);
}

// Text for troff: a leading dot or quote and backslashes would be commands.
static void put_troff(FILE *out, const char *s) {
  if (*s == '.' || *s == '\'')
    fputs("\\&", out);
  for (; *s; s++)
    if (*s == '\\')
      fputs("\\e", out);
    else if (*s == '-')
      fputs("\\-", out);
    else if (*s != '`')
      fputc(*s, out);
}

static void man_options(FILE *out, bool flags) {
  for (unsigned i = 0; i < NUM_OPTIONS; i++) {
    const struct option *o = &config_options[i];
    fputs(".TP\n\\fB", out);
    if (flags) {
      char name[64] = "--";
      snprintf(name, sizeof name, "--%s", o->name);
      for (char *p = name; *p; p++)
        *p = *p == '_' ? '-' : *p;
      put_troff(out, name);
    } else {
      fprintf(out, "%s", o->name);
    }
    fputs("\\fR \\fI", out);
    put_type(out, o, flags);
    fputs("\\fR\n", out);
    put_troff(out, o->doc);
    fputs("\nDefault: ", out);
    put_troff(out, *o->def ? o->def : "none");
    if (has_limits(o)) {
      fputs(", allowed: ", out);
      put_amount(out, o, o->min);
      fputs(" to ", out);
      put_amount(out, o, o->max);
    }
    fprintf(out, ".%s\n", !flags && o->reload ? " Taken over by SIGHUP." : "");
  }
}

void config_man5(FILE *out) {
  fputs(".TH SLUICE.YAML 5 \"\" \"sluice\" \"File formats\"\n.SH NAME\nsluice.yaml \\- configuration of sluice serve\n"
        ".SH DESCRIPTION\nA YAML mapping of options. Flags of\n.BR sluice\\-serve (8)\noverride it.\n.SH OPTIONS\n",
        out);
  man_options(out, false);
  fputs(".SH EXAMPLE\n.nf\nmedia: /srv/music\nlisten: 0.0.0.0:8080\nkeys: /etc/sluice/keys.yaml\ncache_size: 8G\n.fi\n"
        ".SH SEE ALSO\n.BR sluice\\-serve (8)\n",
        out);
}

void config_man8(FILE *out) {
  fputs(".TH SLUICE-SERVE 8 \"\" \"sluice\" \"System administration\"\n"
        ".SH NAME\nsluice\\-serve \\- protect clear music while it is being requested\n"
        ".SH SYNOPSIS\n.B sluice serve\n[\\fB\\-c\\fR \\fIFILE\\fR] [\\fB\\-\\-media\\fR \\fIDIR\\fR] [\\fIoption\\fR ...]\n"
        ".SH DESCRIPTION\nServes the clear CMAF audio below a folder as protected HLS and DASH, encrypted as it is asked for.\n"
        ".SH OPTIONS\n.TP\n\\fB\\-c\\fR, \\fB\\-\\-config\\fR \\fIFILE\\fR\nRead options from a YAML file, see\n"
        ".BR sluice.yaml (5).\n.TP\n\\fB\\-\\-check\\fR\nValidate and do not serve.\n",
        out);
  man_options(out, true);
  fputs(".SH SIGNALS\n.TP\n.BR SIGTERM \", \" SIGINT\nDrain: no new connections, requests under way are finished, then exit. A second one ends at once.\n"
        ".TP\n.B SIGHUP\nRead configuration, keys and certificates again; a fault leaves the old ones in force and logs one line.\n"
        "The access log is opened again.\n"
        ".TP\n.B SIGUSR1\nOpen the access log again, for logrotate.\n"
        ".SH EXIT STATUS\n0 done, 1 failed (a fault in a file that was named is that), 2 wrong usage, of an option too.\n"
        ".SH ENVIRONMENT\n.TP\n.B SLUICE_KERNEL\nNarrows the choice of AES kernels; see\n.BR \"sluice version\" .\n"
        ".SH SEE ALSO\n.BR sluice (1),\n.BR sluice.yaml (5)\n",
        out);
}
