import { describe, expect, it } from 'vitest';
import { failureOf } from './hls';
import { FrameMeter } from './meter';
import { withStereo } from './offer';
import { readRoom } from './room';
import { retryAfterMs } from './session';
import { refusal } from './whep';

describe('a refused WHEP offer', () => {
  it.each([
    [404, 'unknown_room'],
    [401, 'denied'],
    [403, 'denied'],
    [409, 'not_live'],
    [422, 'unsupported'],
    [415, 'unsupported'],
    [503, 'refused'],
    [429, 'refused'],
    [500, 'refused'],
  ])('of status %d means %s', (status, kind) => {
    expect(refusal(status, null, '').kind).toBe(kind);
  });

  it('carries the wait the server asked for', () => {
    expect(refusal(409, '2', 'x')).toEqual({ kind: 'not_live', detail: 'x', retryAfterMs: 2_000 });
  });
});

describe('a fatal error of hls.js', () => {
  it.each([
    ['networkError', 'manifestLoadError', 404, 'not_live'],
    ['networkError', 'manifestLoadError', 401, 'denied'],
    ['networkError', 'levelLoadError', 401, 'denied'],
    ['networkError', 'manifestLoadError', 503, 'refused'],
    ['networkError', 'levelLoadError', 404, 'network'],
    ['networkError', 'fragLoadTimeOut', 0, 'network'],
    ['mediaError', 'bufferAppendError', 0, 'media'],
    ['mediaError', 'manifestIncompatibleCodecsError', 0, 'unsupported'],
  ])('%s %s %d means %s', (type, details, status, kind) => {
    expect(failureOf(type, details, status).kind).toBe(kind);
  });
});

describe("the room's word", () => {
  it.each([
    [200, { state: 'live' }, 'live'],
    [200, { state: 'scheduled' }, 'not_live'],
    [200, { state: 'interrupted' }, 'not_live'],
    [200, { state: 'ended' }, 'ended'],
    [200, { state: 'cancelled' }, 'ended'],
    [200, null, 'not_live'],
    [404, undefined, 'unknown'],
    [503, undefined, 'unreachable'],
  ])('status %d with %j is %s', (status, body, kind) => {
    expect(readRoom(status, body, null).kind).toBe(kind);
  });
});

describe('Retry-After', () => {
  it.each([
    ['2', 2_000],
    ['0', 0],
    ['86400', 60_000],
    ['-1', undefined],
    ['soon', undefined],
    [null, undefined],
  ])('of %j waits %s ms', (header, wait) => {
    expect(retryAfterMs(header)).toBe(wait);
  });
});

describe('the offer', () => {
  const offer = [
    'm=audio 9 UDP/TLS/RTP/SAVPF 111 63 9',
    'a=rtpmap:111 opus/48000/2',
    'a=fmtp:111 minptime=10;useinbandfec=1',
    'a=rtpmap:63 red/48000/2',
    'a=fmtp:63 111/111',
    '',
  ].join('\r\n');

  it('asks for stereo on the line of Opus only', () => {
    const changed = withStereo(offer);
    expect(changed).toContain('a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n');
    expect(changed).toContain('a=fmtp:63 111/111\r\n');
  });

  it('is not changed twice', () => {
    expect(withStereo(withStereo(offer))).toBe(withStereo(offer));
  });
});

describe('FrameMeter', () => {
  it('counts waits over half a second and forgives announced ones', () => {
    const meter = new FrameMeter();
    for (const now of [0, 33, 66, 700, 733]) meter.frame(now);
    meter.skip();
    meter.frame(9_000);
    expect(meter.stalls).toBe(1);
    expect(meter.longestGapMs).toBe(634);
  });

  it('measures the frame rate over the last second or two', () => {
    const meter = new FrameMeter();
    for (let index = 0; index < 200; index += 1) meter.frame(index * 40);
    expect(meter.fps()).toBeCloseTo(25);
  });
});
