import { describe, expect, it } from 'vitest';
import { MediaClock, ServerClock, rtpDifference, tOfRtp } from './clock';

describe('rtpDifference', () => {
  it.each([
    [3_000, 0, 3_000],
    [0, 3_000, -3_000],
    [1_000, 2 ** 32 - 2_000, 3_000],
    [2 ** 32 - 2_000, 1_000, -3_000],
    [7, 7, 0],
  ])('%d is %d ahead by %d', (a, b, expected) => {
    expect(rtpDifference(a, b)).toBe(expected);
  });
});

describe('tOfRtp', () => {
  it('keeps counting over a wrap of the RTP clock', () => {
    const pair = { tUs: 10_000_000, rtp: 2 ** 32 - 45_000, rate: 90_000 };
    expect(tOfRtp(pair, 45_000)).toBe(11_000_000);
  });
});

describe('MediaClock', () => {
  it('knows no T before the first mapping', () => {
    expect(new MediaClock().t(1)).toBeUndefined();
  });

  it('maps with one offset, also before the point it was learnt at', () => {
    const clock = new MediaClock();
    clock.learn(4, 64_000_000);
    expect(clock.t(5.5)).toBe(65_500_000);
    expect(clock.t(3)).toBe(63_000_000);
  });

  it('uses for each frame the mapping of its own stretch after a discontinuity', () => {
    const clock = new MediaClock();
    clock.learn(0, 60_000_000);
    clock.learn(10, 100_000_000);
    expect(clock.t(9.5)).toBe(69_500_000);
    expect(clock.t(10)).toBe(100_000_000);
  });

  it('does not count rounding as a discontinuity', () => {
    const clock = new MediaClock();
    clock.learn(0, 60_000_000);
    clock.learn(1, 61_000_000.4);
    expect(clock.t(2)).toBe(62_000_000);
  });
});

describe('ServerClock', () => {
  const at = Date.parse('2026-05-04T10:00:00Z');

  it('takes equal clocks as equal although the header is cut to seconds', () => {
    const clock = new ServerClock();
    clock.observe(at + 700, at + 720, new Date(at).toUTCString());
    expect(clock.offsetMs()).toBe(0);
  });

  it('finds the offset within a second by one answer and closer by more', () => {
    const clock = new ServerClock();
    for (const ms of [0, 130, 330, 560, 780, 990]) {
      const server = new Date(at + ms);
      clock.observe(at + ms - 60_000, at + ms - 60_000 + 10, server.toUTCString());
    }
    expect(Math.abs(clock.offsetMs() - 60_000)).toBeLessThan(20);
  });

  it('starts over when an answer contradicts what was known', () => {
    const clock = new ServerClock();
    clock.observe(at, at + 10, new Date(at + 60_000).toUTCString());
    clock.observe(at, at + 10, new Date(at - 60_000).toUTCString());
    expect(clock.offsetMs()).toBeLessThan(-59_000);
  });

  it('ignores an answer without a date', () => {
    const clock = new ServerClock();
    clock.observe(at, at, null);
    clock.observe(at, at, 'yesterday');
    expect(clock.offsetMs()).toBe(0);
  });
});
