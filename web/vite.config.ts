/** One page for every address of the front end; everything it needs comes from its own origin. */
import { defineConfig } from 'vitest/config';

const SERVER = 'http://127.0.0.1:8080';

export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: ['chrome111', 'firefox114', 'safari16.4'],
    assetsInlineLimit: 0,
    // The licences of what is bundled travel with it.
    license: { fileName: 'assets/licenses.md' },
    modulePreload: { polyfill: false },
    // hls.js is one file of its own, loaded only where LL-HLS is played.
    chunkSizeWarningLimit: 700,
  },
  server: {
    proxy: Object.fromEntries(['/api', '/whep', '/hls'].map((path) => [path, SERVER])),
  },
  test: { include: ['**/src/**/*.test.ts'] },
});
