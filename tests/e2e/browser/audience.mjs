/**
 * Opens the watch page over each protocol at once in headless Chromium. For each line on stdin it
 * prints one line of JSON: what each page shows now. Ends with stdin.
 *
 * Usage: node audience.mjs '{"http", "room", "pictures", "protocols"}'
 */
import { createInterface } from 'node:readline';
import { launch } from './browser.mjs';

const WAIT_MS_MAX = 60_000;
const task = JSON.parse(process.argv[2]);

async function open(browser, protocol) {
  const page = await browser.newPage({ viewport: { width: 640, height: 480 } });
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(String(error)));
  await page.addInitScript({ path: new URL('./probe.js', import.meta.url).pathname });
  await page.goto(`${task.http}/rooms/${task.room}?protocol=${protocol}`);
  const shows = () => probe.counters.last !== undefined;
  await page.waitForFunction(shows, undefined, { timeout: WAIT_MS_MAX });
  return { page, trouble };
}

/** What a page shows, and what its player says of itself. */
async function look({ page, trouble }) {
  const seen = await page.evaluate(async () => {
    const { protocol, sessions } = (await probe.player).stats();
    const { last, backwards } = probe.counters;
    const connection = probe.peers.at(-1);
    const peer = connection?.connectionState ?? null;
    const rows = connection ? [...(await connection.getStats()).values()] : [];
    const video = rows.find((row) => row.type === 'inbound-rtp' && row.kind === 'video');
    const decoded = video?.framesDecoded ?? 0;
    const lines = video?.frameHeight ?? null;
    const longest_gap_ms = probe.frames.longestGapMs;
    return { protocol, sessions, counter: last, backwards, peer, decoded, lines, longest_gap_ms };
  });
  return { ...seen, trouble };
}

const browser = await launch();
try {
  const pages = {};
  for (const protocol of task.protocols) pages[protocol] = await open(browser, protocol);
  process.stdout.write('ready\n');
  for await (const word of createInterface({ input: process.stdin })) {
    const seen = {};
    for (const protocol of task.protocols) seen[protocol] = await look(pages[protocol]);
    if (word === 'anew') {
      for (const { page } of Object.values(pages)) {
        await page.evaluate(() => {
          probe.frames.longestGapMs = 0;
        });
      }
    } else if (word !== 'look') {
      for (const [protocol, { page }] of Object.entries(pages)) {
        await page.screenshot({ path: `${task.pictures}/${word}-${protocol}.png` });
      }
    }
    process.stdout.write(`${JSON.stringify(seen)}\n`);
  }
} catch (error) {
  process.stderr.write(`audience: ${error.message}\n`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
