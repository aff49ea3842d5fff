import { describe, expect, it } from 'vitest';
import { Plan } from './plan';

const BOTH = { whep: true, hls: true };

describe('auto', () => {
  it('tries WHEP first, or the only one there is', () => {
    expect(new Plan('auto', BOTH).first()).toBe('whep');
    expect(new Plan('auto', { whep: false, hls: true }).first()).toBe('hls');
    expect(new Plan('auto', { whep: false, hls: false }).first()).toBeUndefined();
  });

  it('goes to LL-HLS at once when WHEP never showed a picture', () => {
    const next = new Plan('auto', BOTH).next({ protocol: 'whep', hadMedia: false });
    expect(next).toEqual({ protocol: 'hls', delayMs: 0 });
  });

  it('tries a broken WHEP session twice more before it gives way', () => {
    const plan = new Plan('auto', BOTH);
    const broke = { protocol: 'whep', hadMedia: true } as const;
    expect([plan.next(broke), plan.next(broke), plan.next(broke)]).toEqual([
      { protocol: 'whep', delayMs: 500 },
      { protocol: 'whep', delayMs: 1000 },
      { protocol: 'hls', delayMs: 0 },
    ]);
  });

  it('comes back to WHEP when LL-HLS fails too', () => {
    const plan = new Plan('auto', BOTH);
    plan.next({ protocol: 'whep', hadMedia: false });
    expect(plan.next({ protocol: 'hls', hadMedia: false })?.protocol).toBe('whep');
  });

  it('never again tries what cannot work here', () => {
    const plan = new Plan('auto', BOTH);
    plan.next({ protocol: 'whep', hadMedia: false, isHopeless: true });
    for (let tries = 0; tries < 5; tries += 1) {
      expect(plan.next({ protocol: 'hls', hadMedia: false })?.protocol).toBe('hls');
    }
    expect(plan.next({ protocol: 'hls', hadMedia: false, isHopeless: true })).toBeUndefined();
  });

  it('forgets old failures once it has played for a while', () => {
    const plan = new Plan('auto', BOTH);
    const broke = { protocol: 'whep', hadMedia: true } as const;
    plan.next(broke);
    plan.next(broke);
    plan.settled();
    expect(plan.next(broke)).toEqual({ protocol: 'whep', delayMs: 500 });
  });
});

describe('a forced protocol', () => {
  it('is kept, with waits that grow to eight seconds', () => {
    const plan = new Plan('hls', BOTH);
    const waits = Array.from({ length: 7 }, () => plan.next({ protocol: 'hls', hadMedia: false }));
    expect(waits.map((it) => it?.delayMs)).toEqual([500, 1000, 2000, 4000, 8000, 8000, 8000]);
    expect(waits.every((it) => it?.protocol === 'hls')).toBe(true);
  });

  it('waits at least as long as the server asks', () => {
    const plan = new Plan('whep', BOTH);
    const next = plan.next({ protocol: 'whep', hadMedia: false, retryAfterMs: 5_000 });
    expect(next?.delayMs).toBe(5_000);
  });

  it('is given up when this browser cannot do it', () => {
    expect(new Plan('whep', { whep: false, hls: true }).first()).toBeUndefined();
  });
});
