/**
 * `<lamplight-player>`: one element that plays a room and fires its cards on their frame.
 *
 * It owns a video element, at most one session at a time, the cue timeline, and the decision what
 * to do when something breaks. It draws no controls and no cards: its slot is for the page.
 *
 * Invariants
 * - Cue events are fired inside `requestVideoFrameCallback` of the frame they belong to (by a
 *   timer only where there is no video).
 * - Events of a session that was replaced are ignored.
 */
import { readCard } from './card';
import { ServerClock } from './clock';
import type { Cue } from './cue';
import type { CardDetail, CueDetail, PlayerState, PlayerStats, StateDetail } from './events';
import { HlsSession, canHls, hasMediaSource } from './hls';
import { FrameMeter } from './meter';
import { NativeHlsSession } from './native';
import { type Mode, Plan, type Protocol } from './plan';
import { askRoom } from './room';
import { type Failure, type Session, type SessionContext, play } from './session';
import { CueTimeline, type FramePosition } from './timeline';
import { WhepSession, canWhep } from './whep';

const TICK_MS = 200;
/** No new frame for this long is told as `reconnecting`; for longer the session is replaced. */
const STALLED_MS = 1_500;
const STALLED_MS_MAX = { whep: 6_000, hls: 12_000 };
/** A first frame not shown by then counts as a failure. */
const FIRST_FRAME_MS_MAX = { whep: 10_000, hls: 20_000 };
/** After this long without trouble earlier failures are forgotten. */
const SETTLED_MS = 10_000;
/** Between two tries on a room that is not on air, unless the server names another wait. */
const NOT_LIVE_MS = 2_000;
const CARDS_MAX = 50;
/** The reason of `reconnecting` while nothing comes because nothing is sent. */
export const HOST_AWAY = 'the host lost the connection';

const STYLE = `
:host { display: block; position: relative; overflow: hidden; background: #000; }
:host([hidden]) { display: none; }
video {
  position: absolute; inset: 0; width: 100%; height: 100%;
  object-fit: var(--lamplight-fit, contain);
  object-position: var(--lamplight-position, center);
}
`;

const NOTHING_MORE: Partial<StateDetail> = {};

export class LamplightPlayer extends HTMLElement {
  static readonly observedAttributes = ['room', 'protocol', 'base', 'token'];

  /** The video element, for measurements and picture-in-picture; the player drives it. */
  readonly video: HTMLVideoElement;
  /** The last 50 cards that came into force, oldest first. */
  readonly cards: CardDetail[] = [];

  #state: PlayerState = 'idle';
  #session: Session | undefined;
  #plan = new Plan('auto', { whep: false, hls: false });
  #timeline = new CueTimeline();
  #meter = new FrameMeter();
  #serverClock = new ServerClock();
  #ticker: ReturnType<typeof setInterval> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #connectSoon = false;
  #frameCallback: number | undefined;
  #frame: { meta: VideoFrameCallbackMetadata; at: FramePosition } | undefined;
  /** Counts calls of `connect`, so that an answer to an earlier one is known as such. */
  #attempt = 0;
  /** How often in a row the media was not live although the room says it is. */
  #refusals = 0;
  #connectedAt = 0;
  #sessionAt = 0;
  #progressAt = 0;
  #heardTime = 0;
  #firstFrameMs: number | undefined;
  #hadMedia = false;
  #ticks = 0;
  #sessions = 0;
  #cardsShown = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    this.video = document.createElement('video');
    this.video.muted = true;
    this.video.playsInline = true;
    this.video.disableRemotePlayback = true;
    this.video.part.add('video');
    root.append(this.video, document.createElement('slot'));
    this.video.addEventListener('volumechange', () => this.#tellSound());
  }

  get state(): PlayerState {
    return this.#state;
  }

  /** The protocol in use, not the one asked for (`mode`). */
  get protocol(): Protocol | undefined {
    return this.#session?.protocol;
  }

  get mode(): Mode {
    const mode = this.getAttribute('protocol');
    return mode === 'whep' || mode === 'hls' ? mode : 'auto';
  }

  set mode(mode: Mode) {
    this.setAttribute('protocol', mode);
  }

  get room(): string {
    return this.getAttribute('room') ?? '';
  }

  set room(room: string) {
    this.setAttribute('room', room);
  }

  get muted(): boolean {
    return this.video.muted;
  }

  get volume(): number {
    return this.video.volume;
  }

  connectedCallback(): void {
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    document.addEventListener('visibilitychange', this.#onVisibility);
    addEventListener('pagehide', this.#onLeave);
    addEventListener('pageshow', this.#onReturn);
    this.#reconnectSoon();
  }

  disconnectedCallback(): void {
    clearInterval(this.#ticker);
    document.removeEventListener('visibilitychange', this.#onVisibility);
    removeEventListener('pagehide', this.#onLeave);
    removeEventListener('pageshow', this.#onReturn);
    this.#stop();
    this.#tell('idle');
  }

  attributeChangedCallback(_name: string, before: string | null, now: string | null): void {
    if (before !== now && this.isConnected) this.#reconnectSoon();
  }

  /** Starts anew, as when the page was opened. */
  connect(): void {
    this.#stop();
    const can = { whep: canWhep(), hls: canHls(this.video) };
    this.#plan = new Plan(this.mode, can);
    this.#attempt += 1;
    this.#connectedAt = performance.now();
    this.#firstFrameMs = undefined;
    this.#refusals = 0;
    this.#hadMedia = false;
    this.#meter = new FrameMeter();
    if (!this.room) return this.#tell('idle');
    const protocol = this.#plan.first();
    if (protocol) this.#open(protocol);
    else this.#tell('unplayable', { reason: 'this browser can play neither WebRTC nor HLS' });
  }

  /** Sound on; call it from a tap or key. */
  async unmute(): Promise<void> {
    this.video.muted = false;
    if (this.video.volume === 0) this.video.volume = 1;
    await this.play();
  }

  mute(): void {
    this.video.muted = true;
  }

  setVolume(volume: number): void {
    this.video.volume = Math.min(1, Math.max(0, volume));
    this.video.muted = this.video.volume === 0;
  }

  pause(): void {
    if (!this.#session) return;
    this.video.pause();
    this.#tell('paused');
  }

  /** Goes on after a pause or a blocked start, at the live edge. */
  async play(): Promise<void> {
    const session = this.#session;
    if (!session) return this.connect();
    const stood = this.#state === 'paused' || this.#state === 'blocked';
    if (stood) {
      session.goLive();
      this.#meter.skip();
      this.#resetProgress();
      this.#tell(this.#hadMedia ? 'reconnecting' : 'connecting');
    }
    await play(this.video, this.#eventsOf(session));
  }

  /** A reading of everything measured, at any time. */
  stats(): PlayerStats {
    const quality = this.video.getVideoPlaybackQuality();
    return {
      state: this.#state,
      protocol: this.protocol,
      width: this.video.videoWidth,
      height: this.video.videoHeight,
      fps: this.#meter.fps(),
      dropped_frames: quality.droppedVideoFrames,
      presented_frames: this.#frame?.meta.presentedFrames ?? 0,
      media_time: this.#frame?.meta.mediaTime,
      rtp_timestamp: this.#frame?.meta.rtpTimestamp,
      t_us: this.#frame?.at.tUs,
      stalls: this.#meter.stalls,
      longest_gap_ms: this.#meter.longestGapMs,
      first_frame_ms: this.#firstFrameMs,
      sessions: this.#sessions,
      cards: this.#cardsShown,
      ...this.#session?.numbers(),
    };
  }

  #reconnectSoon(): void {
    // Several attributes set in a row make one connection.
    if (this.#connectSoon) return;
    this.#connectSoon = true;
    queueMicrotask(() => {
      this.#connectSoon = false;
      if (this.isConnected) this.connect();
    });
  }

  #open(protocol: Protocol): void {
    this.#closeSession();
    // A host who lost the connection is told once, not anew with every try.
    if (this.#refusals < 2) this.#tell(this.#hadMedia ? 'reconnecting' : 'connecting');
    const context: SessionContext = {
      video: this.video,
      base: this.getAttribute('base') ?? '',
      room: this.room,
      token: this.getAttribute('token') ?? undefined,
      events: {
        cue: (cue) => this.#session === session && this.#takeCue(cue),
        cueEnd: (end) => this.#session === session && this.#timeline.end(end),
        blocked: () => this.#session === session && this.#tell('blocked'),
        moved: () => this.#session === session && this.#onMoved(protocol),
        ended: () => this.#session === session && void this.#onEnded(),
        failed: (failure) => this.#session === session && void this.#onFailed(failure),
      },
      serverNow: () => Date.now() + this.#serverClock.offsetMs(),
      observe: this.#observe,
    };
    const session = this.#make(protocol, context);
    this.#contexts.set(session, context);
    this.#session = session;
    this.#sessions += 1;
    this.#sessionAt = performance.now();
    this.#frame = undefined;
    this.#resetProgress();
    this.#listen();
    void session.start();
  }

  #contexts = new WeakMap<Session, SessionContext>();

  #eventsOf(session: Session): SessionContext['events'] {
    const context = this.#contexts.get(session);
    if (!context) throw new Error('every session is made with a context');
    return context.events;
  }

  #make(protocol: Protocol, context: SessionContext): Session {
    if (protocol === 'whep') return new WhepSession(context);
    return hasMediaSource() ? new HlsSession(context) : new NativeHlsSession(context);
  }

  #observe = (askedMs: number, { date }: { date: string | null }): void => {
    this.#serverClock.observe(askedMs, Date.now(), date);
  };

  #stop(): void {
    clearTimeout(this.#retry);
    this.#closeSession();
  }

  #closeSession(): void {
    if (this.#frameCallback !== undefined) {
      this.video.cancelVideoFrameCallback(this.#frameCallback);
      this.#frameCallback = undefined;
    }
    const session = this.#session;
    this.#session = undefined;
    session?.close();
    this.#timeline.forgetWaiting();
  }

  #listen(): void {
    if (!('requestVideoFrameCallback' in this.video)) return;
    this.#frameCallback = this.video.requestVideoFrameCallback((now, meta) => {
      this.#listen();
      this.#onFrame(now, meta);
    });
  }

  #onFrame(now: number, meta: VideoFrameCallbackMetadata): void {
    const session = this.#session;
    if (!session) return;
    const at = session.position(meta);
    this.#frame = { meta, at };
    this.#meter.frame(now);
    this.#noteProgress(now);
    this.#fire(at, meta, session.protocol);
  }

  #noteProgress(now: number): void {
    this.#progressAt = performance.now();
    this.#hadMedia = true;
    this.#refusals = 0;
    this.#firstFrameMs ??= now - this.#connectedAt;
    if (this.#state !== 'playing' && !this.video.paused) this.#tell('playing');
  }

  #fire(
    at: FramePosition,
    meta: VideoFrameCallbackMetadata | undefined,
    protocol: Protocol,
  ): void {
    for (const news of this.#timeline.advance(at)) {
      const { id, class: cueClass } = news.cue;
      if (news.kind === 'closed') {
        this.#dispatch('lamplight-cue-end', { id, class: cueClass, reason: news.reason });
        continue;
      }
      const detail: CueDetail = {
        id,
        class: cueClass,
        t_us: news.cue.tUs,
        data: news.cue.data,
        is_late: news.late,
        protocol,
        shown_frame_media_time: meta?.mediaTime,
        shown_frame_t_us: at.tUs,
        rtp_timestamp: meta?.rtpTimestamp,
        presented_frames: meta?.presentedFrames,
      };
      if (cueClass === 'card') this.#fireCard({ ...detail, card: readCard(news.cue.data) });
      else this.#dispatch('lamplight-cue', detail);
    }
  }

  #fireCard(detail: CardDetail): void {
    this.#cardsShown += 1;
    this.cards.push(detail);
    if (this.cards.length > CARDS_MAX) this.cards.shift();
    this.#dispatch('lamplight-card', detail);
  }

  #takeCue(cue: Cue): void {
    const ttl = cue.class === 'card' ? readCard(cue.data)?.ttl_us : undefined;
    this.#timeline.add({ ...cue, durationUs: cue.durationUs ?? (ttl || undefined) });
  }

  #tick(): void {
    const session = this.#session;
    if (!session) return;
    const now = performance.now();
    this.#ticks += 1;
    if (this.#ticks % 5 === 0) session.measure();
    if (this.#state === 'paused' || this.#state === 'blocked') return;
    this.#listenOnly(session);
    // A hidden page shows no frames; what it misses is not a fault of the stream.
    if (document.hidden) return this.#resetProgress();
    if (this.#state === 'playing' && now - this.#sessionAt > SETTLED_MS) this.#plan.settled();
    if (session.awaitsHost()) {
      if (now - this.#progressAt > STALLED_MS) {
        this.#tell('reconnecting', { reason: HOST_AWAY });
      }
      // The session stands; from the host's return on it has its time again.
      this.#progressAt = Math.max(this.#progressAt, now - STALLED_MS);
      return;
    }
    const hasStarted = this.#frame !== undefined || this.#heardTime > 0;
    const limits = hasStarted ? STALLED_MS_MAX : FIRST_FRAME_MS_MAX;
    const silence = now - this.#progressAt;
    if (silence > limits[session.protocol]) {
      void this.#onFailed({ kind: 'stalled', detail: 'no picture arrived in time' });
    } else if (this.#state === 'playing' && silence > STALLED_MS) {
      this.#tell('reconnecting', { reason: 'the picture stopped' });
    }
  }

  /** Without a video track the sound's clock stands in for frames. */
  #listenOnly(session: Session): void {
    const { currentTime, videoWidth, paused } = this.video;
    if (videoWidth > 0 || paused || currentTime <= this.#heardTime) return;
    this.#heardTime = currentTime;
    this.#noteProgress(performance.now());
    this.#fire(session.heard(), undefined, session.protocol);
  }

  #resetProgress(): void {
    this.#progressAt = performance.now();
    this.#heardTime = 0;
  }

  #onVisibility = (): void => {
    this.#meter.skip();
    this.#progressAt = performance.now();
  };

  #onLeave = (): void => this.#stop();

  /** A page that comes back whole from the browser's cache has no session any more. */
  #onReturn = (event: PageTransitionEvent): void => {
    if (event.persisted) this.connect();
  };

  async #onFailed(failure: Failure): Promise<void> {
    const session = this.#session;
    if (!session) return;
    const { protocol } = session;
    const hadMedia = this.#frame !== undefined || this.#heardTime > 0;
    this.#closeSession();
    if (failure.kind === 'not_live' || failure.kind === 'unknown_room') {
      return this.#askAndWait(failure.retryAfterMs ?? NOT_LIVE_MS, failure.detail);
    }
    if (failure.kind === 'denied') return this.#tell('denied', { reason: failure.detail });
    const isHopeless = failure.kind === 'unsupported';
    const { retryAfterMs } = failure;
    const retryAfter = retryAfterMs === undefined ? {} : { retryAfterMs };
    const attempt = this.#plan.next({ protocol, hadMedia, isHopeless, ...retryAfter });
    if (!attempt) return this.#tell('unplayable', { reason: failure.detail });
    this.#tell(this.#hadMedia ? 'reconnecting' : 'connecting', { reason: failure.detail });
    this.#openAfter(attempt.protocol, attempt.delayMs);
  }

  #onMoved(protocol: Protocol): void {
    // Spread over a second so that a draining server's viewers do not all knock at once.
    this.#closeSession();
    this.#tell('reconnecting', { reason: 'the server asked to reconnect' });
    this.#openAfter(protocol, Math.random() * 1_000);
  }

  async #onEnded(): Promise<void> {
    this.#closeSession();
    await this.#askAndWait(0, 'the broadcast ended');
  }

  #openAfter(protocol: Protocol, delayMs: number): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#open(protocol), delayMs);
  }

  /** The room is not on air: says so, and asks again until it is or never will be. */
  async #askAndWait(waitMs: number, reason: string): Promise<void> {
    const { room } = this;
    const attempt = this.#attempt;
    const word = await askRoom(this.getAttribute('base') ?? '', room, this.#observe);
    if (!this.isConnected || this.#session || attempt !== this.#attempt) return;
    clearTimeout(this.#retry);
    switch (word.kind) {
      case 'unknown':
        return this.#tell('unknown', { reason });
      case 'ended':
        return this.#tell('ended', { reason });
      case 'live': {
        const protocol = this.#plan.first();
        if (!protocol) return this.#tell('unplayable', { reason });
        if (this.#firstFrameMs === undefined) this.#connectedAt = performance.now();
        // Live by the room and not yet by the media: the carrier's own wait, then once more.
        if (waitMs === 0) return this.#open(protocol);
        this.#refusals += 1;
        if (this.#refusals > 1) this.#rest({ reason, room_state: 'interrupted' });
        else this.#tell(this.#hadMedia ? 'reconnecting' : 'connecting', { reason });
        return this.#openAfter(protocol, waitMs);
      }
      case 'unreachable':
        if (this.#state !== 'waiting') this.#tell('reconnecting', { reason });
        break;
      case 'not_live':
        this.#refusals = 0;
        this.#rest({ reason, room_state: word.state, starts_at: word.startsAt });
    }
    this.#retry = setTimeout(
      () => void this.#askAndWait(0, reason),
      Math.max(word.retryAfterMs, waitMs),
    );
  }

  /** Nothing is on air: what comes next is another broadcast, with its own T. */
  #rest(more: Partial<StateDetail>): void {
    this.#timeline = new CueTimeline();
    this.#meter.skip();
    this.#tell('waiting', more);
  }

  #tell(state: PlayerState, more: Partial<StateDetail> = NOTHING_MORE): void {
    const previous = this.#state;
    if (state === previous && state !== 'waiting') return;
    this.#state = state;
    this.setAttribute('state', state);
    this.#dispatch('lamplight-state', {
      state,
      previous,
      protocol: this.protocol,
      reason: more.reason,
      room_state: more.room_state,
      starts_at: more.starts_at,
    });
  }

  #tellSound(): void {
    const { muted, volume } = this.video;
    this.#dispatch('lamplight-sound', { muted, volume });
  }

  #dispatch(type: string, detail: unknown): void {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }
}
