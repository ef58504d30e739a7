// Other people's parsers read our playlists and MPDs, and what they read must agree with the virtual files.
// Argument: the dump program. TAP.
import { execFileSync, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const dump = process.argv[2];
const ffmpeg = 'ffmpeg';
const lines = [];
let count = 0;
const ok = (cond, name, detail = '') => {
  lines.push(`${cond ? 'ok' : 'not ok'} ${++count} - ${name.replace(/#/g, '')}`);
  if (!cond) lines.push(`# ${String(detail).replace(/\n/g, ' ')}`);
};
const equal = (got, want, name) =>
  ok(JSON.stringify(got) === JSON.stringify(want), name, `got ${JSON.stringify(got)} want ${JSON.stringify(want)}`);
const finish = () => {
  console.log(`1..${count}`);
  console.log(lines.join('\n'));
};
process.on('uncaughtException', (e) => {
  ok(false, 'no exception', e.stack);
  finish();
  process.exit(1);
});

const top = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
let modules = '';
try {
  modules = execFileSync(path.join(top, 'tools', 'npm')).toString().trim().split('\n').pop();
} catch {
  // said below
}
if (!fs.existsSync(path.join(modules, 'mpd-parser'))) {
  console.log('1..1\nok 1 - parsers # SKIP npm packages hls-parser, m3u8-parser, mpd-parser are not available here');
  process.exit(0);
}
const require = createRequire(path.join(modules, '..', 'index.js'));
const HLS = require('hls-parser');
const { Parser } = require('m3u8-parser');
const mpdParser = require('mpd-parser');

// Names that need escaping everywhere; "a" and "b" share a switching set.
const tracks = [
  { name: 'aac 96', codec: ['aac', '-b:a', '96k', '-ar', '44100', '-ac', '2'], codecs: 'mp4a.40.2', channels: 2 },
  { name: '1"<&>%$é\\', codec: ['aac', '-b:a', '160k', '-ar', '44100', '-ac', '2'], codecs: 'mp4a.40.2', channels: 2 },
  { name: 'mono', codec: ['aac', '-b:a', '64k', '-ar', '48000', '-ac', '1'], codecs: 'mp4a.40.2', channels: 1 },
  { name: 'opus', codec: ['libopus', '-b:a', '96k', '-ac', '2'], codecs: 'opus', channels: 2 },
  { name: 'flac', codec: ['flac', '-ar', '48000', '-ac', '2', '-strict', '-2'], codecs: 'flac', channels: 2 },
  { name: 'ac3', codec: ['ac3', '-b:a', '448k', '-ar', '48000', '-ac', '6'], codecs: 'ac-3', channels: 6, dolby: 'F801' },
];
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-manifest-'));
process.on('exit', () => fs.rmSync(work, { recursive: true, force: true }));
for (const [i, t] of tracks.entries()) {
  t.file = path.join(work, `in${i}.mp4`);
  execFileSync(ffmpeg, ['-v', 'error', '-y', '-f', 'lavfi', '-i', 'aevalsrc=0.3*sin(440*2*PI*t)*sin(t):s=48000:d=13',
    '-c:a', ...t.codec, '-movflags', '+frag_keyframe+empty_moov+default_base_moof+delay_moov', '-frag_duration',
    '1000000', t.file]);
}

const run = (scheme, systems, ...more) => {
  const dir = fs.mkdtempSync(path.join(work, 'out-'));
  execFileSync(dump, [dir, scheme, systems, ...more, ...tracks.map((t) => `${t.name}=${t.file}`)]);
  const text = (name) => fs.readFileSync(path.join(dir, name), 'utf8');
  return { text, file: (i) => fs.readFileSync(path.join(dir, `${i}.mp4`)) };
};

const enc = (name) => encodeURIComponent(name).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
const boxType = (file, at) => file.toString('latin1', at + 4, at + 8);

// Real segment sizes, from the byte-range playlist, which is itself checked against the file.
function segmentsOf(out, i) {
  const list = HLS.parse(out.text(`${i}.byterange.m3u8`));
  const file = out.file(i);
  const tag = `${tracks[i].name}: byte ranges`;
  const map = list.segments[0].map;
  equal(map.byterange.offset, 0, `${tag}: the map starts the file`);
  equal(boxType(file, 0), 'ftyp', `${tag}: which starts with ftyp`);
  let at = map.byterange.length;
  ok(boxType(file, at) === 'sidx', `${tag}: sidx follows the init segment`, boxType(file, at));
  at += file.readUInt32BE(at);
  let tiles = true;
  for (const s of list.segments) {
    tiles = tiles && s.byterange.offset === at && ['moof', 'styp', 'prft'].includes(boxType(file, at));
    at += s.byterange.length;
  }
  ok(tiles && at === file.length, `${tag}: segments tile the rest and start with a moof`, `${at} of ${file.length}`);
  ok(list.segments.every((s) => s.uri === `../${enc(tracks[i].name)}.mp4`), `${tag}: name escaped`, list.segments[0].uri);
  return list.segments.map((s) => ({ bytes: s.byterange.length, seconds: s.duration }));
}

function checkMedia(out, i, scheme, segs) {
  const text = out.text(`${i}.media.m3u8`);
  const list = HLS.parse(text);
  const tag = `${scheme} ${tracks[i].name}: media playlist`;
  equal([list.version, list.playlistType, list.endlist], [6, 'VOD', true], `${tag}: VOD, ended`);
  equal(list.segments.map((s) => s.uri), segs.map((_, k) => `${k + 1}.m4s`), `${tag}: numbered segments`);
  equal(list.segments[0].map.uri, 'init.mp4', `${tag}: init segment`);
  equal(list.segments.map((s) => s.duration), segs.map((s) => s.seconds), `${tag}: same durations as byte ranges`);
  ok(segs.every((s) => Math.round(s.seconds) <= list.targetDuration), `${tag}: target duration`, list.targetDuration);
  const total = segs.reduce((a, s) => a + s.seconds, 0);
  const pts = JSON.parse(execFileSync('ffprobe', ['-v', 'error', '-show_entries', 'packet=pts_time', '-of', 'json',
    tracks[i].file])).packets.map((p) => Number(p.pts_time));
  const last = total - (Math.max(...pts) - Math.min(...pts)); // what is left for the last packet
  ok(last > 0 && last < 0.12, `${tag}: durations sum to the media's`, `${total} ${Math.max(...pts)}`);
  const m3u8 = new Parser();
  m3u8.push(text);
  m3u8.end();
  equal(m3u8.manifest.segments.length, segs.length, `${tag}: m3u8-parser reads as many segments`);
  equal(m3u8.manifest.endList, true, `${tag}: m3u8-parser sees its end`);
  return list;
}

function checkMaster(out, name, playlist, segs) {
  const text = out.text(name);
  const master = HLS.parse(text);
  ok(master.isMasterPlaylist && master.independentSegments, `${name}: multivariant`);
  equal(master.variants.length, tracks.length, `${name}: a variant for each track`);
  const m3u8 = new Parser();
  m3u8.push(text);
  m3u8.end();
  equal(m3u8.manifest.playlists.length, tracks.length, `${name}: m3u8-parser reads as many`);
  for (const [i, t] of tracks.entries()) {
    const uri = `3/${enc(t.name)}/${playlist}`;
    const v = master.variants.find((x) => x.uri === uri);
    ok(v, `${name}: ${t.name} is there, escaped`, master.variants.map((x) => x.uri));
    const bytes = segs[i].reduce((a, s) => a + s.bytes, 0);
    const seconds = segs[i].reduce((a, s) => a + s.seconds, 0);
    const average = (bytes * 8) / seconds;
    ok(Math.abs(v.averageBandwidth - average) <= 2 + average * 1e-5, `${name}: ${t.name}: average from real sizes`,
      `${v.averageBandwidth} ${average}`);
    // RFC 8216bis: over contiguous segments lasting half to one and a half target durations.
    const target = Math.max(1, Math.round(Math.max(...segs[i].map((s) => s.seconds))));
    let peak = 0;
    for (let a = 0; a < segs[i].length; a++) {
      let b = 0, d = 0;
      for (let k = a; k < segs[i].length; k++) {
        b += segs[i][k].bytes;
        d += segs[i][k].seconds;
        if (d > 1.5 * target) break;
        if (d >= 0.5 * target) peak = Math.max(peak, (b * 8) / d);
      }
    }
    ok(Math.abs(v.bandwidth - Math.max(peak, average)) <= 2 + peak * 1e-5, `${name}: ${t.name}: peak from real sizes`,
      `${v.bandwidth} ${peak}`);
    equal(v.codecs.toLowerCase(), t.codecs, `${name}: ${t.name}: codecs`);
    equal(v.audio.length, 1, `${name}: ${t.name}: one rendition in its group`);
    equal([v.audio[0].uri, v.audio[0].channels], [uri, String(t.channels)], `${name}: ${t.name}: rendition, channels`);
  }
  return { master, m3u8: m3u8.manifest };
}

function checkMpd(out, name, segs, scheme) {
  const xml = out.text(name);
  const parsed = mpdParser.parse(xml, { manifestUri: 'https://h/an%20asset/cenc/manifest.mpd' });
  const groups = parsed.mediaGroups.AUDIO.audio;
  const lists = Object.values(groups).flatMap((g) => g.playlists);
  equal(lists.length, tracks.length, `${scheme} ${name}: mpd-parser reads every track`);
  const longest = Math.max(...segs.map((s) => s.reduce((a, x) => a + x.seconds, 0)));
  ok(Math.abs(parsed.duration - longest) < 0.1, `${scheme} ${name}: duration`, `${parsed.duration} ${longest}`);
  for (const [i, t] of tracks.entries()) {
    const p = lists.find((x) => x.attributes.NAME === enc(t.name));
    ok(p, `${scheme} ${name}: ${t.name} is there`);
    equal(p.attributes.CODECS, t.codecs, `${scheme} ${name}: ${t.name}: codecs`);
    const file = out.file(i);
    if (name === 'ondemand.mpd') {
      const { byterange, map } = p.sidx;
      equal(boxType(file, byterange.offset), 'sidx', `${scheme} ${name}: ${t.name}: indexRange is the sidx`);
      equal(file.readUInt32BE(byterange.offset), byterange.length, `${scheme} ${name}: ${t.name}: all of it`);
      equal([map.byterange.offset, map.byterange.length], [0, byterange.offset],
        `${scheme} ${name}: ${t.name}: Initialization is what precedes it`);
      equal(p.sidx.resolvedUri, `https://h/an%20asset/cenc/3/${enc(t.name)}.mp4`, `${scheme} ${name}: ${t.name}: URI`);
      continue;
    }
    equal(p.segments.length, segs[i].length, `${scheme} ${name}: ${t.name}: as many segments as in HLS`);
    equal(p.segments.map((s) => s.resolvedUri),
      segs[i].map((_, k) => `https://h/an%20asset/cenc/3/${enc(t.name)}/${k + 1}.m4s`),
      `${scheme} ${name}: ${t.name}: segment URIs`);
    equal(p.segments[0].map.resolvedUri, `https://h/an%20asset/cenc/3/${enc(t.name)}/init.mp4`,
      `${scheme} ${name}: ${t.name}: init URI`);
    // The first segment is shorter by what the edit list skips; nothing else differs from HLS.
    const off = p.segments.slice(1).map((s, k) => Math.abs(s.duration - segs[i][k + 1].seconds));
    ok(Math.max(...off) < 0.001, `${scheme} ${name}: ${t.name}: durations`, Math.max(...off));
    const primed = segs[i][0].seconds - p.segments[0].duration;
    ok(primed > -0.001 && primed < 0.1, `${scheme} ${name}: ${t.name}: first duration`, primed);
  }
  const sets = [...xml.matchAll(/<AdaptationSet .*?<\/AdaptationSet>/gs)].map((m) => m[0]);
  for (const t of tracks) {
    const set = sets.find((s) => s.includes(`<Representation id="${enc(t.name)}"`));
    const want = t.dolby
      ? `<AudioChannelConfiguration schemeIdUri="tag:dolby.com,2014:dash:audio_channel_configuration:2011" value="${t.dolby}"/>`
      : `<AudioChannelConfiguration schemeIdUri="urn:mpeg:dash:23003:3:audio_channel_configuration:2011" value="${t.channels}"/>`;
    ok(set.includes(want), `${scheme} ${name}: ${t.name}: channels`, set.slice(0, 400));
  }
  const setOf = (n) => sets.findIndex((s) => s.includes(`<Representation id="${enc(n)}"`));
  ok(setOf(tracks[0].name) === setOf(tracks[1].name), `${scheme} ${name}: same codec and channels, one set`);
  ok(setOf('mono') !== setOf(tracks[0].name), `${scheme} ${name}: other channels, another set`);
  return { xml, sets, setOf };
}

// MPEG's schema may not be copied here: SLUICE_DASH_XSD=…/DASH-MPD.xsd (and its xlink.xsd beside it) turns this on.
const xsd = process.env.SLUICE_DASH_XSD;
const checkSchema = (out, scheme) => {
  for (const name of ['manifest.mpd', 'ondemand.mpd']) {
    const tag = `${scheme} ${name}: valid against DASH-MPD.xsd`;
    if (!xsd) {
      lines.push(`ok ${++count} - ${tag} # SKIP SLUICE_DASH_XSD is not set`);
      continue;
    }
    const r = spawnSync('xmllint', ['--noout', '--schema', xsd, '-'], { input: out.text(name) });
    ok(r.status === 0, tag, r.error ?? r.stderr);
  }
};

for (const scheme of ['cenc', 'cbcs', 'clear']) {
  const out = run(scheme, 'all');
  const segs = tracks.map((_, i) => segmentsOf(out, i));
  const { m3u8 } = checkMaster(out, 'master.m3u8', 'media.m3u8', segs);
  checkMaster(out, 'byterange.m3u8', 'byterange.m3u8', segs);
  const media = tracks.map((_, i) => checkMedia(out, i, scheme, segs[i]));
  ok(new Set(media.map((l) => l.targetDuration)).size === 1, `${scheme}: one target duration (RFC 8216 6.2.4)`, media.map((l) => l.targetDuration));
  const formats = media[0].segments[0].key ? out.text('0.media.m3u8').match(/KEYFORMAT="[^"]*"/g) : null;
  const wv = 'KEYFORMAT="urn:uuid:edef8ba9-79d6-4ace-a3c8-27dcd51d21ed"';
  const pr = 'KEYFORMAT="com.microsoft.playready"';
  const ck = 'KEYFORMAT="org.w3.clearkey"';
  const fp = 'KEYFORMAT="com.apple.streamingkeydelivery"';
  equal(formats, { cenc: [wv, pr, ck], cbcs: [wv, pr, fp, ck], clear: null }[scheme], `${scheme}: key lines`);
  equal((out.text('master.m3u8').match(/#EXT-X-SESSION-KEY/g) || []).length, { cenc: 3, cbcs: 4, clear: 0 }[scheme],
    `${scheme}: session keys, each once`);
  equal(Object.keys(m3u8.mediaGroups.AUDIO).length, tracks.length, `${scheme}: audio groups`);
  const dash = checkMpd(out, 'manifest.mpd', segs, scheme);
  checkMpd(out, 'ondemand.mpd', segs, scheme);
  checkSchema(out, scheme);
  equal((dash.xml.match(/mp4protection/g) || []).length, scheme === 'clear' ? 0 : dash.sets.length,
    `${scheme}: mp4protection in each set`);
  ok(!dash.xml.includes('adaptation-set-switching'), `${scheme}: one key, no ties between sets`);
}

{
  const out = run('cbcs', 'clearkey', '-tier', '-identity');
  const { sets, setOf } = checkMpd(out, 'manifest.mpd', tracks.map((_, i) => segmentsOf(out, i)), 'per-tier');
  const kid = (n) => sets[setOf(n)].match(/default_KID="([^"]*)"/)[1];
  ok(kid('flac') !== kid('opus') && kid('opus') === kid('mono'), 'per-tier: FLAC has a key of its own');
  const id = (n) => sets[setOf(n)].match(/<AdaptationSet id="(\d+)"/)[1];
  ok(sets[setOf('flac')].includes(`adaptation-set-switching:2016" value="${[id('aac 96'), id('opus')].join(',')}"`),
    'per-tier: tied to the lossy stereo sets', sets[setOf('flac')].match(/adaptation-set[^>]*/));
  const flac = out.text('4.media.m3u8');
  const opus = out.text('3.media.m3u8');
  const keyid = (t) => t.match(/KEYID=0x([0-9A-F]{32}),/)[1]; // RFC 8216bis §4.2: no other digits
  ok(keyid(flac) !== keyid(opus) && keyid(flac).toLowerCase() === kid('flac').replace(/-/g, ''), 'per-tier: key lines differ too');
  ok(/URI="key",IV=0x[0-9A-F]{32},.*KEYFORMAT="identity"/.test(flac), 'identity: line in the media playlist', flac);
  ok(!out.text('master.m3u8').includes('SESSION-KEY'), 'identity: no session keys beside it');
}

// Half a minute without samples before the third segment: what is written about it is read so by others.
{
  const file = fs.readFileSync(tracks[0].file);
  const gap = 30n * 44100n;
  for (let at = 0, number = 0; at < file.length; at += file.readUInt32BE(at)) {
    if (boxType(file, at) !== 'moof') continue;
    const tfdt = file.indexOf('tfdt', at) + 4;
    if (number++ < 4) continue; // of one second each: two segments
    if (file[tfdt]) file.writeBigUInt64BE(file.readBigUInt64BE(tfdt + 4) + gap, tfdt + 4);
    else file.writeUInt32BE(file.readUInt32BE(tfdt + 4) + Number(gap), tfdt + 4);
  }
  const gapped = path.join(work, 'gap.mp4');
  fs.writeFileSync(gapped, file);
  const dir = fs.mkdtempSync(path.join(work, 'out-'));
  execFileSync(dump, [dir, 'cbcs', 'all', `gap=${gapped}`]);
  const text = fs.readFileSync(path.join(dir, '0.media.m3u8'), 'utf8');
  const list = HLS.parse(text);
  const at = list.segments.findIndex((s) => s.discontinuity);
  equal(list.segments.filter((s) => s.discontinuity).length, 1, 'gap: one discontinuity');
  ok(list.segments.every((s) => s.duration < 3) && list.targetDuration <= 3, 'gap: no segment lasts as long as the gap', text.slice(0, 800));
  const m3u8 = new Parser();
  m3u8.push(text);
  m3u8.end();
  equal(m3u8.manifest.discontinuityStarts, [at], 'gap: m3u8-parser sees it at the same place');
  equal([list.segments[at].map?.uri, list.segments[at].key?.method], ['init.mp4', 'SAMPLE-AES'], 'gap: init segment and key go on');
  const xml = fs.readFileSync(path.join(dir, 'manifest.mpd'), 'utf8');
  const mpd = mpdParser.parse(xml, { manifestUri: 'https://h/manifest.mpd' });
  const { segments } = Object.values(mpd.mediaGroups.AUDIO.audio)[0].playlists[0];
  equal(segments.length, list.segments.length, 'gap: mpd-parser reads as many segments');
  const jump = segments[at].presentationTime - segments[at - 1].presentationTime - segments[at - 1].duration;
  ok(Math.abs(jump - 30) < 0.001, 'gap: mpd-parser finds it before the same segment', jump);
}
finish();
