import { describe, expect, it } from 'vitest';
import { CUE_OWNER, cueTexts, privateFrames } from './id3';

const bytes = (text: string) => [...new TextEncoder().encode(text)];
const syncSafe = (n: number) => [(n >> 21) & 127, (n >> 14) & 127, (n >> 7) & 127, n & 127];

function frame(id: string, body: number[]): number[] {
  return [...bytes(id), ...syncSafe(body.length), 0, 0, ...body];
}

function tag(...frames: number[][]): Uint8Array {
  const body = frames.flat();
  return Uint8Array.from([...bytes('ID3'), 4, 0, 0, ...syncSafe(body.length), ...body]);
}

const cueFrame = (text: string) => frame('PRIV', [...bytes(CUE_OWNER), 0, ...bytes(text)]);

describe('cueTexts', () => {
  it('finds the cue among frames of others', () => {
    const other = frame('PRIV', [...bytes('com.example'), 0, 1, 2]);
    const title = frame('TIT2', [3, ...bytes('show')]);
    expect(cueTexts(tag(title, other, cueFrame('{"é":1}')))).toEqual(['{"é":1}']);
  });

  it('reads a payload longer than seven bits can count', () => {
    const text = 'x'.repeat(1_000);
    expect(cueTexts(tag(cueFrame(text)))).toEqual([text]);
  });
});

describe('privateFrames', () => {
  it('reads nothing out of any cut of a tag beyond its whole frames', () => {
    const whole = tag(cueFrame('one'), cueFrame('two'));
    for (let length = 0; length < whole.length; length += 1) {
      const found = privateFrames(whole.subarray(0, length));
      expect(found.length).toBeLessThan(2);
    }
    expect(privateFrames(whole)).toHaveLength(2);
  });

  it('stops at a frame that claims more than the tag holds', () => {
    const broken = Uint8Array.from(tag(cueFrame('one')));
    broken[17] = 127;
    expect(privateFrames(broken)).toEqual([]);
  });
});
