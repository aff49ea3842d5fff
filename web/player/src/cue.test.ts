import { describe, expect, it } from 'vitest';
import { readCard } from './card';
import { decodeBase64url, readDateRange, readMessage } from './cue';

function encode(text: string): string {
  const binary = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

describe('readMessage', () => {
  it('reads a cue with its RTP time and payload', () => {
    const text = JSON.stringify({
      type: 'cue',
      id: 'card-7',
      class: 'card',
      t_us: 5_000_000,
      rtp: { video: 450_000, audio: 240_000 },
      duration_us: null,
      data: encode('{"price":"5 €"}'),
    });
    expect(readMessage(text)).toEqual({
      type: 'cue',
      cue: {
        id: 'card-7',
        class: 'card',
        tUs: 5_000_000,
        rtp: 450_000,
        durationUs: undefined,
        data: '{"price":"5 €"}',
      },
    });
  });

  it('reads a clock with a wall time in RFC 3339', () => {
    const text = JSON.stringify({
      type: 'clock',
      t_us: 1,
      wall: '2026-05-04T10:00:00.250Z',
      video: { rtp: 9, rate: 90_000 },
    });
    expect(readMessage(text)).toMatchObject({
      type: 'clock',
      clock: { wallMs: Date.parse('2026-05-04T10:00:00.250Z'), audio: undefined },
    });
  });

  it.each([
    ['no JSON', 'hello'],
    ['a list', '[]'],
    ['an unknown type', '{"type":"weather"}'],
    ['a cue without an id', '{"type":"cue","t_us":1,"data":""}'],
    ['a cue whose T is text', '{"type":"cue","id":"a","t_us":"1","data":""}'],
    ['a cue whose payload is not base64url', '{"type":"cue","id":"a","t_us":1,"data":"*"}'],
    ['a clock without T', '{"type":"clock"}'],
    ['a message without an end', `{"type":"bye","reason":"${'x'.repeat(20_000)}"}`],
  ])('refuses %s', (_, text) => {
    expect(readMessage(text)).toBeUndefined();
  });
});

describe('decodeBase64url', () => {
  it.each(['', 'a', 'ab', 'abc', '¿ñ? 你好 ~~~'])('gives back %j', (text) => {
    expect(decodeBase64url(encode(text))).toBe(text);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(decodeBase64url('_w')).toBeUndefined();
  });
});

describe('readDateRange', () => {
  const range = {
    ID: 'card-1',
    CLASS: 'lamplight.card',
    'START-DATE': '2026-05-04T10:00:00.000Z',
    'X-LAMPLIGHT-T': '2500000',
    'X-LAMPLIGHT-DATA': encode('{}'),
  };

  it('reads T and payload, and the class without its prefix', () => {
    const cue = readDateRange({ ...range, DURATION: '1.5' });
    expect(cue).toMatchObject({ id: 'card-1', class: 'card', tUs: 2_500_000, data: '{}' });
    expect(cue?.durationUs).toBe(1_500_000);
  });

  it("leaves other people's ranges alone", () => {
    expect(readDateRange({ ...range, CLASS: 'com.example.ad' })).toBeUndefined();
    expect(readDateRange({ ...range, 'X-LAMPLIGHT-T': undefined })).toBeUndefined();
  });
});

describe('readCard', () => {
  it('reads an envelope of a later version as far as it understands it', () => {
    const card = readCard('{"v":9,"action":"dance","data":{"title":"x"},"more":true}');
    expect(card).toMatchObject({ v: 9, action: 'dance', seq: 0, data: { title: 'x' } });
  });

  it.each(['', 'null', '{"v":1}', '{"action":3}'])('refuses %j', (text) => {
    expect(readCard(text)).toBeUndefined();
  });
});
