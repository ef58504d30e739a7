#include "mp4/describe.h"

// A description is a list of NAME=TYPE, after version and flags where the box has them.
//   8 16 24 32 64   unsigned         i16        signed           x32 x64  better in hexadecimal
//   v               32 bits in version 0, 64 in version 1        iv  the same, signed
//   f               16.16 fixed point, its whole part            4   four characters
//   hN              N bytes in hexadecimal                       s   text up to a zero, r  the rest
//   l               packed language
//   P               crypt and skip counts of a pattern           R   type and size of a sidx reference
//   C               a length and as many bytes, where the payload goes on
//   I               senc's entries
// TYPE@MASK: only with one of these flags (hexadecimal). TYPE%N: only in version N. `_` is read and not told.
// `*` begins a group that repeats: as often as `num` says when the description has one, and never past the payload.
// `|` ends it.
static const struct {
  const char *type, *fields;
} rows[] = {
    {"ftyp", "major_brand=4 minor_version=32 *brand=4"},
    {"styp", "major_brand=4 minor_version=32 *brand=4"},
    {"mvhd", "creation_time=v modification_time=v timescale=32 duration=v"},
    {"tkhd", "creation_time=v modification_time=v track_id=32 _=32 duration=v"},
    {"mdhd", "creation_time=v modification_time=v timescale=32 duration=v language=l"},
    {"elng", "language=s"},
    {"hdlr", "_=32 handler_type=4 _=h12 name=s"},
    {"elst", "num=32 *segment_duration=v media_time=iv media_rate=f"},
    {"stsd", "_=32 num=32"},
    {"stts", "num=32 *count=32 delta=32"},
    {"stsc", "num=32 *first_chunk=32 samples_per_chunk=32 sample_description_index=32"},
    {"stsz", "sample_size=32 num=32 *size=32"},
    {"stco", "num=32 *offset=32"},
    {"co64", "num=32 *offset=64"},
    {"mehd", "fragment_duration=v"},
    {"trex", "track_id=32 sample_description_index=32 sample_duration=32 sample_size=32 sample_flags=x32"},
    {"mfhd", "sequence_number=32"},
    {"tfhd", "track_id=32 base_data_offset=64@1 sample_description_index=32@2 sample_duration=32@8 sample_size=32@10 "
             "sample_flags=x32@20"},
    {"tfdt", "base_media_decode_time=v"},
    {"trun", "num=32 data_offset=i32@1 first_sample_flags=x32@4 *duration=32@100 size=32@200 flags=x32@400 "
             "composition_offset=i32@800"},
    {"sidx", "reference_id=32 timescale=32 earliest_presentation_time=v first_offset=v _=16 num=16 *reference=R "
             "duration=32 sap=x32"},
    {"tfra", "track_id=32 lengths=x32 num=32 entries=r"},
    {"mfro", "mfra_size=32"},
    {"prft", "track_id=32 ntp_time=x64 media_time=v"},
    {"emsg", "scheme=s%0 value=s%0 timescale=32%0 presentation_time_delta=32%0 event_duration=32%0 id=32%0 "
             "timescale=32%1 presentation_time=64%1 event_duration=32%1 id=32%1 scheme=s%1 value=s%1 data=r"},
    {"sgpd", "grouping_type=4 default_length=32%1 default_length=32%2 default_group_description_index=32%2 num=32 entries=r"},
    {"sbgp", "grouping_type=4 grouping_type_parameter=32%1 num=32 *sample_count=32 group_description_index=32"},
    {"pssh", "system_id=h16 num=32%1 *kid=h16%1 |data_size=32 data=r"},
    {"frma", "format=4"},
    {"schm", "scheme=4 scheme_version=x32"},
    {"tenc", "_=8 pattern=P is_protected=8 per_sample_iv_size=8 kid=h16 constant_iv=C"},
    {"senc", "num=32 *iv=I"},
    {"saiz", "aux_info_type=4@1 aux_info_type_parameter=32@1 default_size=8 num=32 *size=8"},
    {"saio", "aux_info_type=4@1 aux_info_type_parameter=32@1 num=32 *offset=v"},
    {"btrt", "buffer_size=32 max_bitrate=32 avg_bitrate=32"},
    {"esds", "descriptors=r"},
    {"dOps", "version=8 channels=8 pre_skip=16 input_sample_rate=32 output_gain=i16 mapping_family=8"},
    {"dfLa", "blocks=r"},
    {"dac3", "config=r"},
    {"dec3", "config=r"},
    {"mhaC", "version=8 profile_level=8 channel_layout=8"},
    {"uuid", "user_type=h16 data=r"},
};

static const char entry_fields[] = "_=h6 data_reference_index=16 version=16 _=h6 channels=16 sample_size=16 _=32 sample_rate=f";

struct scribe {
  const struct describe *d;
  struct reader r;
  unsigned version;
  uint32_t flags;
  uint64_t num;
  bool counted;
};

static const char *fields_of(uint32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (load_be32((const uint8_t *)rows[i].type) == type)
      return rows[i].fields;
  const struct box_info *info = box_info_of(type);
  return info && info->kind == BOX_AUDIO ? entry_fields : NULL;
}

bool describe_knows(uint32_t type) { return fields_of(type) != NULL; }

static unsigned number(const char **p, unsigned base) {
  unsigned v = 0;
  for (;; (*p)++) {
    unsigned digit = **p >= '0' && **p <= '9' ? (unsigned)(**p - '0') : **p >= 'a' && **p <= 'f' ? (unsigned)(**p - 'a') + 10 : 99;
    if (digit >= base)
      return v;
    v = v * base + digit;
  }
}

static void tell(struct scribe *s, struct field f) {
  if (!s->r.err && !(f.name && f.name_len == 1 && *f.name == '_'))
    s->d->field(s->d->ctx, &f);
}

static void mark(struct scribe *s, enum field_kind kind, const char *name) {
  struct field f = {.name = name, .name_len = strlen(name), .kind = kind};
  s->d->field(s->d->ctx, &f);
}

static uint64_t read_uint(struct reader *r, unsigned bits) {
  uint64_t v = 0;
  for (unsigned i = 0; i < bits / 8; i++)
    v = v << 8 | rd_u8(r);
  return v;
}

static struct bytes read_text(struct reader *r) {
  const uint8_t *zero = rd_left(r) ? memchr(r->p, 0, rd_left(r)) : NULL;
  struct bytes b = rd_bytes(r, zero ? (size_t)(zero - r->p) : rd_left(r));
  if (zero)
    rd_skip(r, 1);
  return b;
}

// One entry of senc: its IV, and subsamples with flag 2. ISO/IEC 23001-7 7.2.
static void tell_senc(struct scribe *s, struct field f) {
  if (s->d->iv_size) {
    f.kind = FIELD_HEX;
    f.raw = rd_bytes(&s->r, s->d->iv_size);
    tell(s, f);
  }
  if (!(s->flags & 2))
    return;
  uint16_t num = rd_u16(&s->r);
  mark(s, FIELD_LIST, "subsamples");
  for (uint16_t i = 0; i < num && !s->r.err; i++) {
    mark(s, FIELD_ITEM, "");
    tell(s, (struct field){.name = "clear", .name_len = 5, .kind = FIELD_UINT, .u = rd_u16(&s->r)});
    tell(s, (struct field){.name = "protected", .name_len = 9, .kind = FIELD_UINT, .u = rd_u32(&s->r)});
    mark(s, FIELD_ITEM_END, "");
  }
  mark(s, FIELD_LIST_END, "");
}

// Types that tell two fields.
static void tell_pair(struct scribe *s, const char *a, uint64_t va, const char *b, uint64_t vb) {
  tell(s, (struct field){.name = a, .name_len = strlen(a), .kind = FIELD_UINT, .u = va});
  tell(s, (struct field){.name = b, .name_len = strlen(b), .kind = FIELD_UINT, .u = vb});
}

static void tell_typed(struct scribe *s, struct field f, const char *type) {
  unsigned wide = s->version == 1 ? 64 : 32, bits = 0;
  uint32_t v;
  switch (*type) {
  case 'v': f.u = read_uint(&s->r, wide); break;
  case 'i':
    type++;
    bits = *type == 'v' ? wide : number(&type, 10);
    f.kind = FIELD_INT;
    f.i = (int64_t)(read_uint(&s->r, bits) << (64 - bits)) >> (64 - bits);
    break;
  case 'x':
    type++;
    f.kind = FIELD_FLAGS;
    f.u = read_uint(&s->r, number(&type, 10));
    break;
  case 'f': f.u = rd_u32(&s->r) >> 16; break;
  case '4': f.kind = FIELD_TEXT; f.raw = rd_bytes(&s->r, 4); break;
  case 'h':
    type++;
    f.kind = FIELD_HEX;
    f.raw = rd_bytes(&s->r, number(&type, 10));
    break;
  case 's': f.kind = FIELD_TEXT; f.raw = read_text(&s->r); break;
  case 'r': f.kind = FIELD_HEX; f.raw = rd_bytes(&s->r, rd_left(&s->r)); break;
  case 'l':
    v = rd_u16(&s->r);
    f.kind = FIELD_TEXT;
    uint8_t code[3] = {(uint8_t)((v >> 10 & 31) + 0x60), (uint8_t)((v >> 5 & 31) + 0x60), (uint8_t)((v & 31) + 0x60)};
    f.raw = bytes_of(code, 3);
    tell(s, f);
    return;
  case 'P':
    v = rd_u8(&s->r);
    tell_pair(s, "crypt_byte_block", v >> 4, "skip_byte_block", v & 15);
    return;
  case 'R':
    v = rd_u32(&s->r);
    tell_pair(s, "reference_type", v >> 31, "referenced_size", v & 0x7fffffff);
    return;
  case 'C':
    if (!rd_left(&s->r))
      return;
    f.kind = FIELD_HEX;
    f.raw = rd_bytes(&s->r, rd_u8(&s->r));
    break;
  case 'I': tell_senc(s, f); return;
  default: f.u = read_uint(&s->r, number(&type, 10)); break;
  }
  tell(s, f);
}

// Reads one NAME=TYPE at *p, steps over it and the blanks behind.
static void one(struct scribe *s, const char **p) {
  struct field f = {.name = *p};
  const char *q = strchr(*p, '=');
  f.name_len = (size_t)(q - *p);
  const char *type = q + 1, *rest = type + strcspn(type, " @%|");
  bool here = true;
  if (*rest == '@') {
    rest++;
    here = (number(&rest, 16) & s->flags) != 0;
  } else if (*rest == '%') {
    rest++;
    here = number(&rest, 10) == s->version;
  }
  if (f.name_len == 3 && !memcmp(f.name, "num", 3)) {
    struct reader peek = s->r;
    s->counted = true;
    if (here)
      s->num = read_uint(&peek, *type == '1' ? 16 : 32);
  }
  if (here)
    tell_typed(s, f, type);
  *p = rest + strspn(rest, " ");
}

static void group(struct scribe *s, const char **p) {
  const char *start = *p, *after = start + strcspn(start, "|");
  mark(s, FIELD_LIST, "entries");
  for (uint64_t i = 0; (!s->counted || i < s->num) && !s->r.err; i++) {
    size_t left = rd_left(&s->r);
    if (!left)
      break;
    mark(s, FIELD_ITEM, "");
    for (const char *q = start; q < after;)
      one(s, &q);
    mark(s, FIELD_ITEM_END, "");
    if (rd_left(&s->r) == left)
      break; // entries without fields: nothing more to say
  }
  mark(s, FIELD_LIST_END, "");
  *p = *after ? after + 1 : after;
}

enum err describe_box(const struct describe *d, uint32_t type, struct bytes payload) {
  const struct box_info *info = box_info_of(type);
  const char *p = fields_of(type);
  struct scribe s = {.d = d, .r = rd_of(payload)};
  if (info && info->kind == BOX_FULL) {
    uint32_t head = rd_u32(&s.r);
    s.version = head >> 24;
    s.flags = head & 0xffffff;
    tell(&s, (struct field){.name = "version", .name_len = 7, .kind = FIELD_UINT, .u = s.version});
    tell(&s, (struct field){.name = "flags", .name_len = 5, .kind = FIELD_FLAGS, .u = s.flags});
  }
  while (p && *p && !s.r.err) {
    if (*p == '*') {
      p++;
      group(&s, &p);
    } else {
      one(&s, &p);
    }
  }
  return s.r.err;
}
