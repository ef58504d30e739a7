// Audio groups of the multivariant playlist. A player's rate adaptation moves between groups and may change the rendition
// inside one only by its language, so that every group has the same languages. Source: RFC 8216 §4.3.4.1.1, §4.3.4.2.
//
// With one language each track is a group. With several, the rungs of a group's codec and channel layout are those of the
// language that has most of them; the others give the rung nearest in rate. A language that is not there in this codec and
// layout is borrowed: from another layout, or from AAC, which every player has, so that no player loses the group by it. Where
// there is nothing to borrow (a language in Dolby Digital Plus only, say), these groups lack the language; the alternative were
// to take the others from those who cannot play that codec.
#include "manifest/track.h"

enum { MAX = MAN_MAX_TRACKS };

bool man_has_language(const struct ix_header *h) {
  struct bytes lang = man_text(h->language, sizeof h->language);
  return lang.n && !bytes_eq(lang, BYTES_LIT("und"));
}

static int language_cmp(const struct ix_header *a, const struct ix_header *b) {
  int c = (int)!man_has_language(a) - (int)!man_has_language(b);
  return c || !man_has_language(a) ? c : strncmp(a->language, b->language, sizeof a->language);
}

struct language {
  uint8_t track, uses; // a track that is in it, and how many are
};

// What is known of an asset while its groups are made.
struct plan_of_groups {
  const struct man_asset *a;
  const struct man_order *o;
  uint32_t num_langs;
  uint8_t lang[MAX]; // of track number
  struct language langs[MAX];
};

static const struct ix_header *header(const struct plan_of_groups *p, uint8_t track) { return p->a->tracks[track].ix->h; }

// Most tracks first: the language that is complete is the one to begin with. Then by name, tracks without one last.
static bool comes_before(const struct plan_of_groups *p, uint32_t x, uint32_t y) {
  if (p->langs[x].uses != p->langs[y].uses)
    return p->langs[x].uses > p->langs[y].uses;
  return language_cmp(header(p, p->langs[x].track), header(p, p->langs[y].track)) < 0;
}

static void find_languages(struct plan_of_groups *p) {
  for (uint32_t i = 0; i < p->o->num; i++) {
    uint8_t t = p->o->at[i];
    uint32_t l = 0;
    while (l < p->num_langs && language_cmp(header(p, p->langs[l].track), header(p, t)) != 0)
      l++;
    if (l == p->num_langs) {
      p->langs[l].track = t;
      p->num_langs++;
    }
    p->langs[l].uses++;
  }
  for (uint32_t i = 1; i < p->num_langs; i++)
    for (uint32_t k = i; k && comes_before(p, k, k - 1); k--) {
      struct language swap = p->langs[k];
      p->langs[k] = p->langs[k - 1];
      p->langs[k - 1] = swap;
    }
  for (uint32_t t = 0; t < p->o->num; t++)
    while (language_cmp(header(p, p->langs[p->lang[t]].track), header(p, (uint8_t)t)) != 0)
      p->lang[t]++;
}

static uint32_t num_named(const struct plan_of_groups *p) {
  uint32_t named = p->num_langs;
  for (uint32_t l = 0; l < p->num_langs; l++)
    named -= !man_has_language(header(p, p->langs[l].track));
  return named;
}

uint8_t man_default_language(const struct man_asset *a) {
  struct man_order any = {.num = 0}; // which languages there are does not depend on it
  struct plan_of_groups p = {.a = a, .o = &any};
  while (any.num < a->num_tracks && any.num < MAX) {
    any.at[any.num] = (uint8_t)any.num;
    any.num++;
  }
  find_languages(&p);
  return num_named(&p) > 1 ? p.langs[0].track : MAN_NO_TRACK;
}

bool man_same_language(const struct man_track *a, const struct man_track *b) { return language_cmp(a->ix->h, b->ix->h) == 0; }

// The rungs of one language within one codec and layout, lowest rate first.
struct rungs {
  uint32_t num;
  uint8_t at[MAX];
};

static struct rungs rungs_of(const struct plan_of_groups *p, uint8_t like, uint32_t lang) {
  struct rungs r = {0};
  for (uint32_t i = 0; i < p->o->num; i++)
    if (p->lang[p->o->at[i]] == lang && man_same_kind(&p->a->tracks[like], &p->a->tracks[p->o->at[i]]))
      r.at[r.num++] = p->o->at[i];
  return r;
}

static uint32_t rate_gap(const struct plan_of_groups *p, uint8_t x, uint8_t y) {
  uint32_t a = header(p, x)->avg_bitrate, b = header(p, y)->avg_bitrate;
  return a > b ? a - b : b - a;
}

static bool may_lend(const struct ix_header *from, const struct ix_header *to) {
  return from->format == to->format || from->format == FOURCC('m', 'p', '4', 'a');
}

// A track of `lang` of another kind for the group that `lead` leads; MAN_NO_TRACK when there is none to lend.
static uint8_t lend(const struct plan_of_groups *p, uint8_t lead, uint32_t lang) {
  uint8_t best = MAN_NO_TRACK;
  bool best_fits = false;
  for (uint32_t i = 0; i < p->o->num; i++) {
    uint8_t t = p->o->at[i];
    if (p->lang[t] != lang || !may_lend(header(p, t), header(p, lead)))
      continue;
    bool fits = header(p, t)->channels == header(p, lead)->channels;
    if (best == MAN_NO_TRACK || fits > best_fits || (fits == best_fits && rate_gap(p, t, lead) < rate_gap(p, best, lead))) {
      best = t;
      best_fits = fits;
    }
  }
  return best;
}

// Fills the members of `lang` in the groups `lead[0..num)` of one kind: each rung is in a group, none goes down as groups
// go up, and where there are fewer rungs than groups the nearer one is taken twice.
static void fill(const struct plan_of_groups *p, struct man_groups *g, uint32_t first, uint32_t lang) {
  uint32_t num = g->num - first, at = 0;
  struct rungs r = rungs_of(p, g->lead[first], lang);
  for (uint32_t i = 0; i < num; i++) {
    uint8_t lead = g->lead[first + i];
    if (i && at + 1 < r.num &&
        (r.num - 1 - at == num - i || rate_gap(p, r.at[at + 1], lead) < rate_gap(p, r.at[at], lead)))
      at++;
    g->member[first + i][lang] = r.num ? r.at[at] : lend(p, lead, lang);
  }
}

// The groups of the kind (codec and layout) of track `like`.
static void add_kind(const struct plan_of_groups *p, struct man_groups *g, uint8_t like) {
  struct rungs most = {0};
  for (uint32_t l = 0; l < p->num_langs; l++) {
    struct rungs r = rungs_of(p, like, l);
    if (r.num > most.num)
      most = r;
  }
  uint32_t first = g->num;
  for (uint32_t i = 0; i < most.num; i++)
    g->lead[g->num++] = most.at[i];
  for (uint32_t l = 0; l < p->num_langs; l++)
    fill(p, g, first, l);
}

void man_groups(struct man_groups *g, const struct man_asset *a, const struct man_order *o) {
  struct plan_of_groups p = {.a = a, .o = o};
  *g = (struct man_groups){.speaker = MAN_NO_TRACK};
  find_languages(&p);
  uint32_t named = num_named(&p);
  g->num_langs = named > 1 ? p.num_langs : 1;
  if (named == 1) // the languages that are known come first only among those with as many tracks
    g->speaker = man_has_language(header(&p, p.langs[0].track)) ? p.langs[0].track : p.langs[1].track;
  for (uint32_t i = 0; i < o->num; i++) {
    if (named <= 1) { // tracks that say no language are taken for the one that the others say
      g->lead[g->num] = g->member[g->num][0] = o->at[i];
      g->num++;
      continue;
    }
    bool before = false;
    for (uint32_t k = 0; k < i && !before; k++)
      before = man_same_kind(&a->tracks[o->at[k]], &a->tracks[o->at[i]]);
    if (!before)
      add_kind(&p, g, o->at[i]);
  }
}
