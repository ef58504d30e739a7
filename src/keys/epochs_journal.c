// Journal lines of epochs.
//   sluice1 rotate SEQ TIME_MS GRACE_MS REVOKE SCOPE CHECKSUM     one rotation
//   sluice1 scheduled SEQ TIME_MS GRACE_MS SLOT_MS SCOPE CHECKSUM one rotation by a schedule
//   sluice1 slot SLOT_MS SCOPE CHECKSUM                           where a scope's schedule stands
//   sluice1 base SEQ COUNT REVOKE_SEQ SCOPE CHECKSUM              COUNT rotations of SCOPE up to SEQ, all expired
// SCOPE is percent-encoded, "*" for everything. CHECKSUM is XXH3-64, 16 hex digits, of all bytes before it.
#include "base/text.h"
#include "drm/markup.h"
#include "keys/epochs.h"
#include "keys/epochs_state.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAX_WORDS = 8, LINE_SCRATCH = 3 * EPOCH_MAX_SCOPE + 256 };

// "sluice1 KIND NUMBER… SCOPE CHECKSUM"
static void write_line(struct writer *out, const char *kind, const uint64_t *numbers, size_t num, struct bytes scope) {
  uint8_t buf[LINE_SCRATCH], sum[8];
  struct writer line = wr_of(buf, sizeof buf);
  wr_str(&line, "sluice1 ");
  wr_str(&line, kind);
  for (size_t i = 0; i < num; i++) {
    wr_u8(&line, ' ');
    wr_dec(&line, numbers[i]);
  }
  wr_u8(&line, ' ');
  if (scope.n)
    percent_write(&line, scope, true);
  else
    wr_u8(&line, '*');
  wr_u8(&line, ' ');
  store_be64(sum, XXH3_64bits(line.p, line.n));
  hex_write(&line, bytes_of(sum, 8));
  wr_u8(&line, '\n');
  wr_raw(out, line.p, line.n);
}

static void write_rotate(struct writer *w, struct bytes scope, const struct epoch_past *p, bool revoke) {
  write_line(w, "rotate", (uint64_t[]){p->seq, p->time_ms, p->grace_ms, revoke}, 4, scope);
}

void epochs_write_event(struct writer *w, const struct epoch_event *ev) {
  if (ev->slot_ms)
    write_line(w, "scheduled", (uint64_t[]){ev->seq, ev->time_ms, ev->grace_ms, ev->slot_ms}, 4, ev->scope);
  else
    write_rotate(w, ev->scope, &(struct epoch_past){ev->seq, ev->time_ms, ev->grace_ms}, ev->revoke);
}

void epochs_write_slot(struct writer *w, struct bytes scope, uint64_t slot_ms) {
  write_line(w, "slot", &slot_ms, 1, scope);
}

// The last seq up to which every rotation, of whatever scope, has run out of grace.
static uint64_t foldable(const struct epochs *e, uint64_t now_ms) {
  uint64_t seq = e->next_seq - 1;
  for (uint32_t i = 0; i < e->num_slots; i++)
    for (uint32_t n = 0; e->slots[i] && n < e->slots[i]->num; n++) {
      const struct epoch_past *p = &e->slots[i]->past[n];
      bool over = now_ms >= p->time_ms && now_ms - p->time_ms >= p->grace_ms;
      if (!over && p->seq - 1 < seq)
        seq = p->seq - 1;
    }
  return seq;
}

static void write_base(struct writer *w, const struct epoch_rule *r, uint64_t fold, uint32_t folded) {
  write_line(w, "base", (uint64_t[]){fold, r->folded + folded, r->revoke_seq <= fold ? r->revoke_seq : 0}, 3, r->scope);
}

enum err epochs_write_all(struct writer *w, const struct epochs *e, uint64_t now_ms, struct alloc *tmp) {
  // Every rotation above `fold` has its place: numbers are dense enough, and sorting by them is indexing.
  struct place {
    const struct epoch_rule *rule;
    const struct epoch_past *past;
  };
  uint64_t fold = foldable(e, now_ms), num = e->next_seq - 1 - fold;
  struct place *places = num ? tmp->get(tmp, num * sizeof *places) : NULL;
  if (num && !places)
    return ERR_NO_MEMORY;
  for (uint32_t i = 0; i < e->num_slots; i++) {
    const struct epoch_rule *r = e->slots[i];
    uint32_t folded = 0;
    for (uint32_t n = 0; r && n < r->num; n++) {
      if (r->past[n].seq <= fold)
        folded++;
      else
        places[r->past[n].seq - fold - 1] = (struct place){r, &r->past[n]};
    }
    if (r && r->folded + folded)
      write_base(w, r, fold, folded);
  }
  for (uint64_t i = 0; i < num; i++)
    if (places[i].past)
      write_rotate(w, places[i].rule->scope, places[i].past, places[i].past->seq == places[i].rule->revoke_seq);
  for (uint32_t i = 0; i < e->num_slots; i++)
    if (e->slots[i] && e->slots[i]->slot_ms)
      epochs_write_slot(w, e->slots[i]->scope, e->slots[i]->slot_ms);
  return ERR_OK;
}

struct words {
  struct bytes w[MAX_WORDS];
  unsigned num;
};

static struct words split(struct bytes line) {
  struct words s = {.num = 0};
  for (size_t i = 0, start = 0; i <= line.n && s.num < MAX_WORDS; i++)
    if (i == line.n || line.p[i] == ' ') {
      s.w[s.num++] = bytes_of(line.p + start, i - start);
      start = i + 1;
    }
  return s;
}

static enum err read_scope(uint8_t buf[EPOCH_MAX_SCOPE], struct bytes *out, struct bytes text) {
  size_t n = 0;
  if (bytes_eq(text, BYTES_LIT("*")))
    text.n = 0;
  for (size_t i = 0; i < text.n; i++) {
    if (n == EPOCH_MAX_SCOPE)
      return ERR_LIMIT;
    buf[n] = text.p[i];
    if (text.p[i] == '%') {
      if (i + 2 >= text.n || hex_read(&buf[n], 1, bytes_of(text.p + i + 1, 2)))
        return ERR_SYNTAX;
      i += 2;
    }
    n++;
  }
  *out = bytes_of(buf, n);
  return ERR_OK;
}

static enum err apply_base(struct epochs *e, const struct words *s, struct diag *diag) {
  uint8_t buf[EPOCH_MAX_SCOPE];
  struct bytes scope;
  uint64_t seq, count, revoke;
  if (s->num != 7 || parse_u64(&seq, s->w[2]) || parse_u64(&count, s->w[3]) || parse_u64(&revoke, s->w[4]) ||
      read_scope(buf, &scope, s->w[5]) || seq >= INT32_MAX || revoke > seq || !count || count > seq - (e->folded < seq ? e->folded : seq))
    return diag_say(diag, ERR_SYNTAX, "a base line of the journal cannot be read");
  // Counts come first, with one seq, and once for each scope.
  bool first = e->next_seq == 1 || (e->fold_seq == seq && e->next_seq == seq + 1);
  struct epoch_rule *r = first && !epochs_scope_ok(scope, diag) ? epochs_rule(e, scope, true) : NULL;
  if (!r || epochs_rule_num(r))
    return diag_say(diag, ERR_ARGUMENT, "a base line of the journal is out of order");
  r->folded = count;
  e->folded += count;
  r->revoke_seq = revoke;
  e->fold_seq = seq;
  e->next_seq = seq + 1;
  return ERR_OK;
}

// The fifth word is REVOKE of an ordered rotation, SLOT_MS of a scheduled one.
static enum err apply_rotate(struct epochs *e, const struct words *s, bool scheduled, struct diag *diag) {
  uint8_t buf[EPOCH_MAX_SCOPE];
  struct epoch_event ev = {0};
  uint64_t fifth;
  if (s->num != 8 || parse_u64(&ev.seq, s->w[2]) || parse_u64(&ev.time_ms, s->w[3]) ||
      parse_u64(&ev.grace_ms, s->w[4]) || parse_u64(&fifth, s->w[5]) || (!scheduled && fifth > 1) ||
      read_scope(buf, &ev.scope, s->w[6]))
    return diag_say(diag, ERR_SYNTAX, "a rotate line of the journal cannot be read");
  ev.revoke = !scheduled && fifth;
  ev.slot_ms = scheduled ? fifth : 0;
  return epochs_apply(e, &ev, diag);
}

static enum err apply_slot(struct epochs *e, const struct words *s, struct diag *diag) {
  uint8_t buf[EPOCH_MAX_SCOPE];
  struct bytes scope;
  uint64_t slot;
  if (s->num != 5 || parse_u64(&slot, s->w[2]) || read_scope(buf, &scope, s->w[3]))
    return diag_say(diag, ERR_SYNTAX, "a slot line of the journal cannot be read");
  return epochs_set_slot(e, scope, slot, diag);
}

enum err epochs_read_line(struct epochs *e, struct bytes line, struct diag *diag) {
  if (line.n && line.p[line.n - 1] == '\n')
    line.n--;
  if (line.n > EPOCH_MAX_LINE)
    return diag_say(diag, ERR_LIMIT, "a line of the journal has more than %d bytes", EPOCH_MAX_LINE);
  uint8_t sum[8];
  if (line.n < 17 || hex_read(sum, 8, bytes_of(line.p + line.n - 16, 16)) ||
      load_be64(sum) != XXH3_64bits(line.p, line.n - 16))
    return diag_say(diag, ERR_CHECKSUM, "a line of the journal is torn or altered");
  struct words s = split(line);
  if (s.num > 2 && bytes_eq(s.w[0], BYTES_LIT("sluice1")) && bytes_eq(s.w[1], BYTES_LIT("rotate")))
    return apply_rotate(e, &s, false, diag);
  if (s.num > 2 && bytes_eq(s.w[0], BYTES_LIT("sluice1")) && bytes_eq(s.w[1], BYTES_LIT("scheduled")))
    return apply_rotate(e, &s, true, diag);
  if (s.num > 2 && bytes_eq(s.w[0], BYTES_LIT("sluice1")) && bytes_eq(s.w[1], BYTES_LIT("slot")))
    return apply_slot(e, &s, diag);
  if (s.num > 2 && bytes_eq(s.w[0], BYTES_LIT("sluice1")) && bytes_eq(s.w[1], BYTES_LIT("base")))
    return apply_base(e, &s, diag);
  return diag_say(diag, ERR_SYNTAX, "a line of the journal is of a kind that this version does not know");
}
