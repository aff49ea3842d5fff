/**
 * HLS by the browser itself, where there is no Media Source (older iPhones).
 *
 * T comes from the playlist's dates: the element tells the date of its media time zero, the date
 * ranges tell pairs of T and date. Cues come as timed metadata of the metadata text track.
 */
import { MediaClock } from './clock';
import { type Cue, readDateRange, readMessage } from './cue';
import { CUE_OWNER } from './id3';
import { type Session, type SessionContext, type SessionNumbers, play } from './session';
import type { FramePosition } from './timeline';

type DatedVideo = HTMLVideoElement & { getStartDate?: () => Date };

interface DataCue extends TextTrackCue {
  type?: string;
  value?: { key?: string; info?: string; data?: unknown };
}

export class NativeHlsSession implements Session {
  readonly protocol = 'hls';
  readonly #context: SessionContext;
  readonly #clock = new MediaClock();
  readonly #listeners = new AbortController();
  /** Safari hands out the attributes of one date range as one cue each. */
  readonly #ranges = new Map<number, Record<string, string>>();

  constructor(context: SessionContext) {
    this.#context = context;
  }

  start(): Promise<void> {
    const { video, base, room, token, events } = this.#context;
    const { signal } = this.#listeners;
    video.addEventListener('ended', () => events.ended(), { signal });
    video.addEventListener('error', () => this.#onError(), { signal });
    video.textTracks.addEventListener('addtrack', ({ track }) => track && this.#listen(track), {
      signal,
    });
    video.srcObject = null;
    // The element sends no header of ours.
    const query = token ? `?token=${encodeURIComponent(token)}` : '';
    video.src = `${base}/hls/${encodeURIComponent(room)}/index.m3u8${query}`;
    return play(video, events);
  }

  close(): void {
    if (this.#listeners.signal.aborted) return;
    this.#listeners.abort();
    this.#context.video.removeAttribute('src');
    this.#context.video.load();
  }

  position(frame: VideoFrameCallbackMetadata): FramePosition {
    return { tUs: this.#clock.t(frame.mediaTime), rtp: undefined };
  }

  heard(): FramePosition {
    return { tUs: this.#clock.t(this.#context.video.currentTime), rtp: undefined };
  }

  goLive(): void {
    const ranges = this.#context.video.seekable;
    if (ranges.length > 0) this.#context.video.currentTime = ranges.end(ranges.length - 1);
  }

  awaitsHost(): boolean {
    // The element does not tell a gap from a path that carries nothing.
    return false;
  }

  measure(): void {
    // The browser keeps its own distance to the live edge.
  }

  numbers(): SessionNumbers {
    const { video, serverNow } = this.#context;
    const zero = (video as DatedVideo).getStartDate?.().getTime();
    if (zero === undefined || !Number.isFinite(zero)) return {};
    return { latency_ms: Math.max(0, serverNow() - zero - video.currentTime * 1000) };
  }

  #onError(): void {
    const { video, events } = this.#context;
    const code = video.error?.code;
    const { MEDIA_ERR_NETWORK, MEDIA_ERR_SRC_NOT_SUPPORTED } = MediaError;
    const isNetwork = code === MEDIA_ERR_NETWORK || code === MEDIA_ERR_SRC_NOT_SUPPORTED;
    // A playlist that answers 404 is "not supported" to the element; the room's state decides.
    events.failed({
      kind: isNetwork ? 'not_live' : 'media',
      detail: `the browser could not play the stream (${code ?? 0})`,
    });
  }

  #listen(track: TextTrack): void {
    if (track.kind !== 'metadata') return;
    track.mode = 'hidden';
    const read = () => {
      for (const cue of Array.from(track.cues ?? [])) this.#onCue(cue as DataCue);
    };
    const { signal } = this.#listeners;
    track.addEventListener('cuechange', read, { signal });
    this.#context.video.addEventListener('timeupdate', read, { signal });
  }

  #onCue(cue: DataCue): void {
    const { key, info, data } = cue.value ?? {};
    if (key === 'PRIV' && info === CUE_OWNER && data instanceof ArrayBuffer) {
      const message = readMessage(new TextDecoder().decode(data));
      if (message?.type === 'cue') this.#take(message.cue, cue.startTime);
      if (message?.type === 'cue_end') this.#context.events.cueEnd(message.end);
    } else if (key && typeof data === 'string') {
      const attributes = this.#ranges.get(cue.startTime) ?? {};
      attributes[key] = data;
      this.#ranges.set(cue.startTime, attributes);
      const found = readDateRange(attributes);
      if (found) this.#take(found, cue.startTime);
    }
  }

  #take(cue: Cue, startTime: number): void {
    if (this.#clock.t(startTime) === undefined) this.#clock.learn(startTime, cue.tUs);
    this.#context.events.cue({ ...cue, rtp: undefined });
  }
}
