/**
 * Cues as they arrive: data channel messages, `emsg` samples and date ranges, read into one shape.
 *
 * Everything here comes from the network: what does not fit is refused with `undefined`.
 */

/** A timed message, from whichever carrier it came. */
export interface Cue {
  id: string;
  class: string;
  /** The T of the frame it belongs to. */
  tUs: number;
  /** RTP time of that frame, in a WHEP session. */
  rtp: number | undefined;
  durationUs: number | undefined;
  /** The payload as text: for class `card` the JSON of the envelope. */
  data: string;
}

/** An open cue was closed at `tUs`. */
export interface CueEnd {
  id: string;
  tUs: number;
  rtp: number | undefined;
}

/** The server's word on the time of a WHEP session. */
export interface ClockMessage {
  tUs: number;
  wallMs: number | undefined;
  video: { rtp: number; rate: number } | undefined;
  audio: { rtp: number; rate: number } | undefined;
}

export type ChannelMessage =
  | { type: 'cue'; cue: Cue }
  | { type: 'cue_end'; end: CueEnd }
  | { type: 'clock'; clock: ClockMessage }
  | { type: 'reconnect' }
  | { type: 'bye'; reason: string };

type Json = Record<string, unknown>;

const MESSAGE_LENGTH_MAX = 16_384;

function object(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Json)
    : undefined;
}

function number(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** JSON text to an object; nothing if it is something else. */
export function parseObject(source: string): Json | undefined {
  if (source.length > MESSAGE_LENGTH_MAX) return undefined;
  try {
    return object(JSON.parse(source));
  } catch {
    return undefined;
  }
}

/** Base64url, padded or not, to UTF-8 text. */
export function decodeBase64url(source: string): string | undefined {
  try {
    const binary = atob(source.replaceAll('-', '+').replaceAll('_', '/'));
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function readCue(json: Json): Cue | undefined {
  const id = text(json.id);
  const tUs = number(json.t_us);
  const data = decodeBase64url(text(json.data) ?? '');
  if (id === undefined || tUs === undefined || data === undefined) return undefined;
  return {
    id,
    class: text(json.class) ?? '',
    tUs,
    rtp: number(object(json.rtp)?.video),
    durationUs: number(json.duration_us),
    data,
  };
}

function readCueEnd(json: Json): CueEnd | undefined {
  const id = text(json.id);
  const tUs = number(json.t_us);
  if (id === undefined || tUs === undefined) return undefined;
  return { id, tUs, rtp: number(object(json.rtp)?.video) };
}

function readTrackClock(value: unknown): { rtp: number; rate: number } | undefined {
  const rtp = number(object(value)?.rtp);
  const rate = number(object(value)?.rate);
  return rtp !== undefined && rate !== undefined && rate > 0 ? { rtp, rate } : undefined;
}

function readWall(value: unknown): number | undefined {
  if (typeof value === 'string') return number(Date.parse(value));
  const micros = number(value);
  return micros === undefined ? undefined : micros / 1000;
}

/** One message of the data channel, or of an `emsg` (which knows only `cue` and `cue_end`). */
export function readMessage(source: string): ChannelMessage | undefined {
  const json = parseObject(source);
  if (!json) return undefined;
  switch (json.type) {
    case 'cue': {
      const cue = readCue(json);
      return cue && { type: 'cue', cue };
    }
    case 'cue_end': {
      const end = readCueEnd(json);
      return end && { type: 'cue_end', end };
    }
    case 'clock': {
      const tUs = number(json.t_us);
      if (tUs === undefined) return undefined;
      const video = readTrackClock(json.video);
      const audio = readTrackClock(json.audio);
      return { type: 'clock', clock: { tUs, wallMs: readWall(json.wall), video, audio } };
    }
    case 'reconnect':
      return { type: 'reconnect' };
    case 'bye':
      return { type: 'bye', reason: text(json.reason) ?? '' };
    default:
      return undefined;
  }
}

const DATE_RANGE_CLASS = 'lamplight.';

/** The attributes of an `EXT-X-DATERANGE`; `undefined` if it is not one of our cues. */
export function readDateRange(attributes: Record<string, string | undefined>): Cue | undefined {
  const id = attributes.ID;
  const cueClass = attributes.CLASS;
  const tUs = Number(attributes['X-LAMPLIGHT-T'] ?? Number.NaN);
  const data = decodeBase64url(attributes['X-LAMPLIGHT-DATA'] ?? '');
  if (!id || !cueClass?.startsWith(DATE_RANGE_CLASS) || !Number.isFinite(tUs)) return undefined;
  if (data === undefined) return undefined;
  const seconds = Number(attributes.DURATION ?? Number.NaN);
  return {
    id,
    class: cueClass.slice(DATE_RANGE_CLASS.length),
    tUs,
    rtp: undefined,
    durationUs: Number.isFinite(seconds) ? seconds * 1e6 : undefined,
    data,
  };
}
