// Looks at report pages in Chromium: node report.mjs FOLDER|'' NAME=FILE… ; with a folder it leaves pictures there.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { done, ok } from './tap.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const [pictures, ...pages] = process.argv.slice(2);

// What a reader sees: headings, and for every plot how much is drawn and whether it lies where it can be seen.
function look() {
  const plots = [...document.querySelectorAll('svg')].map((svg) => {
    const marks = [...svg.querySelectorAll('path,rect,circle')];
    const frame = svg.getBoundingClientRect();
    const inside = marks.filter((m) => {
      const r = m.getBoundingClientRect();
      return r.left >= frame.left - 2 && r.right <= frame.right + 2 && r.top >= frame.top - 2 && r.bottom <= frame.bottom + 2;
    });
    return { title: svg.previousElementSibling.tagName === 'H2' ? svg.previousElementSibling.textContent : svg.previousElementSibling.previousElementSibling.textContent,
      marks: marks.length, inside: inside.length, labels: svg.querySelectorAll('text').length, width: frame.width, height: frame.height,
      drawn: marks.some((m) => { const r = m.getBoundingClientRect(); return r.width > 3 || r.height > 3; }) };
  });
  return { plots, text: document.body.innerText, headings: [...document.querySelectorAll('h2')].map((x) => x.textContent),
    bold: document.querySelectorAll('main b').length, columns: document.querySelectorAll('table tr:first-child th').length - 1,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth, markup: document.body.innerHTML };
}

const WANT = {
  single: ['Latency by percentile, from the intended send time', 'Startup delay by percentile: from play to sound', 'Requests per second', 'Listeners at once',
    'Late segments and failed requests, per second', 'Latency over time'],
  two: ['Latency by percentile, from the intended send time', 'Startup delay by percentile: from play to sound', 'Requests per second', 'Listeners at once',
    'Late segments and failed requests, per second', 'Latency over time: quiet day </script><b>', 'Latency over time: release day'],
  strange: ['Latency by percentile, from the intended send time', 'Startup delay by percentile: from play to sound', 'Requests per second',
    'Late segments and failed requests, per second', 'Latency over time'],
  capacity: ['Latency by percentile, from the intended send time', 'Requests per second', 'Late segments and failed requests, per second',
    'Search for the capacity: p99 of each probe, and the 95 % interval', 'Latency over time'],
};

const { chromium } = await import(path.join(here, '../npm/node_modules/playwright-core/index.mjs'));
const profile = await mkdtemp(path.join(tmpdir(), 'sluice-report-'));
const context = await chromium.launchPersistentContext(profile, { executablePath: '/usr/bin/chromium', headless: true, viewport: { width: 1180, height: 900 },
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update'] });
try {
  for (const item of pages) {
    const [name, file] = item.split(/=(.*)/s);
    const page = await context.newPage(), said = [], asked = [];
    page.on('console', (m) => said.push(`${m.type()}: ${m.text()}`));
    page.on('pageerror', (e) => said.push(String(e)));
    page.on('request', (r) => asked.push(r.url()));
    await page.goto(pathToFileURL(file).href);
    const seen = await page.evaluate(look);
    ok(said.length === 0, `${name}: nothing on the console`, said);
    const ticks = await page.evaluate('[[1, 8], [3, 4], [0.7, 4], [250, 4], [0, 4]].map((a) => ticks(...a).join())');
    ok(ticks.join(' ') === '0,0.2,0.4,0.6,0.8,1 0,1,2,3 0,0.2,0.4,0.6 0,50,100,150,200,250 0', `${name}: round numbers on the axes`, ticks);
    ok(asked.length === 1, `${name}: one file, nothing else is fetched`, asked);
    ok(JSON.stringify(seen.plots.map((p) => p.title)) === JSON.stringify(WANT[name]), `${name}: the plots are there`, seen.headings);
    for (const p of seen.plots)
      ok(p.marks > 0 && p.inside === p.marks && p.labels >= 2 && p.width > 900 && p.height > 100 && p.drawn, `${name}: ${p.title}: drawn, inside its frame, labelled`, p);
    ok(!/NaN|undefined|Infinity/.test(seen.markup), `${name}: every number is one`, seen.markup.match(/.{40}(NaN|undefined|Infinity).{40}/));
    ok(seen.overflow <= 0, `${name}: nothing sticks out`, seen.overflow);
    ok(seen.columns === (name === 'two' ? 2 : 1), `${name}: a column a run`, seen.columns);
    if (name === 'two') ok(seen.text.includes('quiet day </script><b>') && seen.text.includes('release day'), `${name}: names are text, whatever is in them`, seen.text.slice(0, 300));
    if (name === 'strange') {
      ok(seen.text.includes('<img src=x') && seen.text.includes('<!--<script>') && seen.text.includes('invalid: not to be used'), `${name}: what is no markup is none`, seen.text.slice(0, 300));
      ok(seen.text.includes('first wrong byte: /a/<b>1.m4s: byte 3'), `${name}: the first wrong byte`, seen.text.slice(0, 300));
    }
    if (name === 'capacity') ok(/95 % interval\s+[\d.]+.* to [\d.]+/.test(seen.text) && /recovery after the spike/.test(seen.text) && seen.text.includes('limit found') && seen.text.includes('of the spike beyond'), `${name}: the interval and the recovery`, seen.text);
    await page.setViewportSize({ width: 420, height: 800 });
    ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1), `${name}: fits a telephone`);
    // The page draws anew for another width, a moment after it has it.
    const read = () => page.waitForFunction(() => [...document.querySelectorAll('svg text')].every((t) => t.getBoundingClientRect().height >= 9), null, { timeout: 5000 });
    ok(await read().then(() => true, () => false), `${name}: letters on the plots can be read there`);
    const colours = await page.evaluate('new Set(C.map((c) => getComputedStyle(document.documentElement).getPropertyValue(c.slice(4, -1)))).size');
    ok(colours === 8, `${name}: eight runs have a colour each`, colours);
    if (pictures && name !== 'strange') {
      await page.setViewportSize({ width: 1180, height: 900 });
      await page.screenshot({ path: path.join(pictures, `load-${name}.png`), fullPage: true });
    }
    await page.close();
  }
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
done();
