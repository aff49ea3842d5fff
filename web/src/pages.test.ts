import type { PlayerStats } from '@lamplight/player';
import { describe, expect, it } from 'vitest';
import { readRoom } from './api/rooms';
import { rtmpServer } from './home/go_live';
import { whenStarts } from './home/when';
import { pathOfRoom, roomOfPath } from './route';
import { initialsOf } from './ui/brand';
import { formatT, statRows } from './watch/stat_rows';
import { type ShownCard, withShown } from './watch/use_player';

describe('roomOfPath', () => {
  it.each([
    ['/rooms/room_01', 'room_01'],
    ['/rooms/room_01/', 'room_01'],
    ['/rooms/a%20b', 'a b'],
    ['/rooms/%', undefined],
    ['/rooms/', undefined],
    ['/rooms/a/b', undefined],
    ['/', undefined],
  ])('reads %s as %s', (path, room) => {
    expect(roomOfPath(path)).toBe(room);
  });

  it('reads what pathOfRoom wrote', () => {
    expect(roomOfPath(pathOfRoom('room/ü?'))).toBe('room/ü?');
  });
});

describe('readRoom', () => {
  it('keeps a room whose creator is missing', () => {
    expect(readRoom({ id: 'room_1', title: 'A', state: 'live', creator: null })).toEqual({
      id: 'room_1',
      title: 'A',
      state: 'live',
      startsAt: undefined,
      creator: undefined,
    });
  });

  it.each([null, 'room', {}, { id: '' }, { id: 4 }])('refuses %j', (json) => {
    expect(readRoom(json)).toBeUndefined();
  });
});

describe('words', () => {
  it.each([
    ['Mara Lindt', 'ML'],
    ['lamplight', 'L'],
    ['  a  b  c ', 'AC'],
    ['', ''],
  ])('initials of %j are %j', (name, initials) => {
    expect(initialsOf(name)).toBe(initials);
  });

  it('promise a start only when one is announced', () => {
    expect(whenStarts('2026-05-04T10:00:00Z', 'scheduled', 'en-GB')).toMatch(/^Starts Mon/);
    expect(whenStarts(undefined, 'scheduled')).not.toMatch(/\d/);
    expect(whenStarts('soon', 'interrupted')).toBe('Back in a moment');
  });

  it('name an address that OBS on this machine can reach', () => {
    expect(rtmpServer('localhost')).toBe('rtmp://127.0.0.1:1935/live');
    expect(rtmpServer('live.example.com')).toBe('rtmp://live.example.com:1935/live');
  });
});

describe('stat rows', () => {
  const stats: PlayerStats = {
    state: 'playing',
    protocol: 'whep',
    width: 1280,
    height: 720,
    fps: 29.97,
    dropped_frames: 0,
    presented_frames: 10,
    media_time: 1,
    rtp_timestamp: 1,
    t_us: 3_725_042_000,
    stalls: 0,
    longest_gap_ms: 40,
    first_frame_ms: 410,
    sessions: 1,
    cards: 0,
    latency_ms: 187,
  };

  it('tell protocol, latency and resolution', () => {
    const rows = Object.fromEntries(statRows(stats).map(({ name, value }) => [name, value]));
    expect(rows).toMatchObject({
      Protocol: 'Real time (WebRTC)',
      'Live latency': '0.19 s',
      Resolution: '1280 × 720',
      'Show time': '01:02:05.042',
    });
  });

  it('leave out what is not known', () => {
    const names = statRows({ ...stats, width: 0 }).map((row) => row.name);
    expect(names).not.toContain('Resolution');
    expect(names).not.toContain('Bitrate');
  });

  it('never show a T before the start', () => {
    expect(formatT(-5)).toBe('00:00:00.000');
  });
});

describe('the list of what was shown', () => {
  const shown = (id: string, title: string): ShownCard => ({
    id,
    at: 0,
    view: { eyebrow: '', title, note: undefined, price: undefined, was: undefined },
  });

  it('moves an item up when it is shown again', () => {
    const list = [shown('c1', 'Mug'), shown('c2', 'Throw'), shown('c3', 'Mug')].reduce<ShownCard[]>(
      withShown,
      [],
    );
    expect(list.map((card) => card.id)).toEqual(['c3', 'c2']);
  });

  it('forgets the oldest beyond thirty', () => {
    let list: ShownCard[] = [];
    for (let index = 0; index < 40; index += 1) {
      list = withShown(list, shown(`c${index}`, `${index}`));
    }
    expect(list).toHaveLength(30);
    expect(list.at(-1)?.id).toBe('c10');
  });
});
