// Reads [{name, kind: "hls"|"dash", url, text}] on standard input; prints what three parsers by others make of each:
// [{name, parser, error?, segments?, playlists?, duration?, codecs?}].
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const require = createRequire(new URL('../npm/package.json', import.meta.url));
const hls = require('hls-parser');
const m3u8 = require('m3u8-parser');
const mpd = require('mpd-parser');
const sum = (list) => list.reduce((a, s) => a + s.duration, 0);

const readers = {
  hls: {
    'hls-parser': ({ text }) => {
      const p = hls.parse(text);
      return p.isMasterPlaylist
        ? { playlists: p.variants.length, codecs: p.variants.map((v) => v.codecs) }
        : { segments: p.segments.length, duration: sum(p.segments), maps: p.segments.filter((s) => s.map).length,
            keys: p.segments.filter((s) => s.key).length, ended: p.endlist };
    },
    'm3u8-parser': ({ text }) => {
      const parser = new m3u8.Parser();
      const warnings = [];
      parser.on('warn', (e) => warnings.push(e.message));
      parser.push(text);
      parser.end();
      const m = parser.manifest;
      return m.playlists
        ? { playlists: m.playlists.length, codecs: m.playlists.map((v) => v.attributes.CODECS), warnings }
        : { segments: m.segments.length, duration: sum(m.segments), ended: m.endList, warnings };
    },
  },
  dash: {
    'mpd-parser': ({ text, url }) => {
      const warnings = [];
      const m = mpd.parse(text, { manifestUri: url, eventHandler: (e) => warnings.push(e.message) });
      const groups = Object.values(m.mediaGroups.AUDIO.audio ?? {}).concat([]);
      const lists = groups.flatMap((g) => g.playlists).concat(m.playlists);
      return { playlists: lists.length, segments: lists.map((p) => p.segments.length), durations: lists.map((p) => sum(p.segments)),
        codecs: lists.map((p) => p.attributes.CODECS), duration: m.duration, warnings,
        sidx: lists.filter((p) => p.sidx).length };
    },
  },
};

const out = [];
for (const item of JSON.parse(readFileSync(0, 'utf8'))) {
  for (const [parser, read] of Object.entries(readers[item.kind])) {
    try {
      out.push({ name: item.name, parser, ...read(item) });
    } catch (e) {
      out.push({ name: item.name, parser, error: String(e) });
    }
  }
}
process.stdout.write(JSON.stringify(out));
