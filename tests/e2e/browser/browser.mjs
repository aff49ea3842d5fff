/** Headless Chromium as all tests start it. */
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

/** Without sandbox (CI runs as root), and without calls to the outside. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  // Addresses of this machine as they are, since no multicast name service answers here.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
];
const BROWSERS = ['/usr/bin/chromium', '/usr/bin/google-chrome', '/usr/bin/chromium-browser'];

export function launch() {
  const executablePath = BROWSERS.find((path) => existsSync(path));
  if (!executablePath) throw new Error('no Chromium: run scripts/setup.sh --test');
  return chromium.launch({ executablePath, args: FLAGS });
}
