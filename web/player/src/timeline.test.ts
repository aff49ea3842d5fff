import { describe, expect, it } from 'vitest';
import type { Cue } from './cue';
import { CueTimeline, type FramePosition } from './timeline';

const FRAME_US = 33_333;

function cue(id: string, tUs: number, more: Partial<Cue> = {}): Cue {
  return { id, class: 'card', tUs, rtp: undefined, durationUs: undefined, data: '', ...more };
}

const byT = (tUs: number): FramePosition => ({ tUs, rtp: undefined });

/** The ids of what comes into force with a frame. */
function opened(timeline: CueTimeline, frame: FramePosition): string[] {
  return timeline.advance(frame).flatMap((it) => (it.kind === 'opened' ? [it.cue.id] : []));
}

describe('a cue by T', () => {
  it('comes with the first frame at or after its T and never again', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 10 * FRAME_US));
    expect(opened(timeline, byT(9 * FRAME_US))).toEqual([]);
    expect(opened(timeline, byT(10 * FRAME_US))).toEqual(['a']);
    expect(opened(timeline, byT(11 * FRAME_US))).toEqual([]);
  });

  it('is not put off a frame by the rounding of T to 90 kHz', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 366_666));
    const rounded = (Math.floor((366_666 * 9) / 100) * 100) / 9;
    expect(opened(timeline, byT(rounded))).toEqual(['a']);
  });

  it('comes at once when it arrives after its frame, and says so', () => {
    const timeline = new CueTimeline();
    timeline.advance(byT(9_000_000));
    timeline.add(cue('a', 1_000_000));
    expect(timeline.advance(byT(9_033_333))).toMatchObject([{ kind: 'opened', late: true }]);
  });

  it('comes once although emsg and date range both bring it', () => {
    const timeline = new CueTimeline();
    expect(timeline.add(cue('a', 1_000))).toBe(true);
    expect(timeline.add(cue('a', 1_000))).toBe(false);
    expect(opened(timeline, byT(2_000))).toEqual(['a']);
    expect(timeline.add(cue('a', 1_000))).toBe(false);
    expect(opened(timeline, byT(3_000))).toEqual([]);
  });

  it('comes in the order of T whatever the order of arrival', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('b', 2_000_000));
    timeline.add(cue('a', 1_000_000));
    expect(opened(timeline, byT(2_500_000))).toEqual(['a', 'b']);
  });

  it('waits while no T is known', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 0));
    expect(opened(timeline, { tUs: undefined, rtp: 5 })).toEqual([]);
  });
});

describe('a cue by RTP time', () => {
  const atRtp = (rtp: number): FramePosition => ({ tUs: undefined, rtp: rtp % 2 ** 32 });

  it('comes with the frame of its RTP time before any clock message', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 5_000_000, { rtp: 450_000 }));
    expect(opened(timeline, atRtp(447_000))).toEqual([]);
    expect(opened(timeline, atRtp(450_000))).toEqual(['a']);
  });

  it('comes right over the wrap of the RTP clock', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 5_000_000, { rtp: 1_000 }));
    expect(opened(timeline, atRtp(2 ** 32 - 2_000))).toEqual([]);
    expect(opened(timeline, atRtp(1_000))).toEqual(['a']);
  });

  it('is known to be long past although its RTP time reads as the future', () => {
    const timeline = new CueTimeline();
    const hours = 8 * 3_600;
    timeline.add(cue('pinned', 0, { rtp: 0 }));
    const frame = { tUs: hours * 1e6, rtp: (hours * 90_000) % 2 ** 32 };
    expect(opened(timeline, frame)).toEqual(['pinned']);
  });
});

describe('a closing', () => {
  it('takes effect on its own frame', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 0));
    timeline.advance(byT(0));
    timeline.end({ id: 'a', tUs: 1_000_000, rtp: undefined });
    expect(timeline.advance(byT(966_667))).toEqual([]);
    expect(timeline.advance(byT(1_000_000))).toMatchObject([{ kind: 'closed', reason: 'closed' }]);
  });

  it('keeps a cue that is already over from flashing up', () => {
    const timeline = new CueTimeline();
    timeline.end({ id: 'a', tUs: 2_000_000, rtp: undefined });
    timeline.add(cue('a', 1_000_000));
    expect(timeline.advance(byT(3_000_000))).toEqual([]);
  });

  it('comes by itself when the time of the cue runs out', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 0, { durationUs: 500_000 }));
    expect(opened(timeline, byT(0))).toEqual(['a']);
    expect(timeline.advance(byT(500_000))).toMatchObject([{ kind: 'closed', reason: 'lapsed' }]);
  });
});

describe('bounds', () => {
  it('drops the oldest of more waiting cues than it holds', () => {
    const timeline = new CueTimeline();
    for (let index = 0; index < 600; index += 1) timeline.add(cue(`c${index}`, index * 1_000_000));
    expect(opened(timeline, byT(600_000_000))).toHaveLength(512);
  });

  it('takes a waiting cue again from the next session', () => {
    const timeline = new CueTimeline();
    timeline.add(cue('a', 1_000_000));
    timeline.forgetWaiting();
    expect(timeline.add(cue('a', 1_000_000))).toBe(true);
  });
});
