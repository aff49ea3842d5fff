/** `/rooms/{room}`: the stage with its player and cards, and the show's side. */
import '@lamplight/player';
import type { LamplightPlayer, Mode } from '@lamplight/player';
import { useEffect, useRef, useState } from 'preact/hooks';
import { type Room, findRoom } from '../api/rooms';
import { Avatar, Brand } from '../ui/brand';
import { CloseIcon, SoundOffIcon } from '../ui/icons';
import { Ambient } from './ambient';
import { CardOverlay } from './card_overlay';
import { Controls, type OpenPanel } from './controls';
import { Notice, spokenState } from './notice';
import { Panel } from './panel';
import { ProtocolMenu } from './protocol_menu';
import { About, CardList, Side } from './side';
import { StatList } from './stat_list';
import { useCards, usePlayerState, useSound } from './use_player';
import { useIdle, useShape, useShortcuts } from './use_stage';
import './watch.css';
import './watch_screens.css';

const PANEL_TITLES = {
  stats: 'Stream details',
  protocol: 'Playback',
  cards: 'Shown in this show',
};

/** `?protocol=whep|hls` forces one; anything else leaves the choice to the player. */
function modeOfQuery(query: URLSearchParams): Mode {
  const wanted = query.get('protocol');
  return wanted === 'whep' || wanted === 'hls' ? wanted : 'auto';
}

/** The room's words, asked for again whenever it comes on air. */
function useRoom(id: string, isPlaying: boolean): Room | undefined {
  const [room, setRoom] = useState<Room>();
  useEffect(() => {
    void findRoom(id).then((answer) => answer.kind === 'found' && setRoom(answer.room));
  }, [id, isPlaying]);
  useEffect(() => {
    if (room) document.title = `${room.title} · Lamplight`;
  }, [room?.title]);
  return room;
}

export function WatchPage({ room: id, query }: { room: string; query: URLSearchParams }) {
  const player = useRef<LamplightPlayer>(null);
  const stage = useRef<HTMLElement>(null);
  const [mode, setMode] = useState<Mode>(() => modeOfQuery(query));
  const [open, setOpen] = useState<OpenPanel>();
  const detail = usePlayerState(player);
  const sound = useSound(player);
  const { current, history, dismiss } = useCards(player);
  const { state } = detail;
  const isOnAir = state === 'playing' || state === 'reconnecting' || state === 'paused';
  const hasControls = isOnAir || state === 'blocked';
  const room = useRoom(id, isOnAir);
  const isIdle = useIdle(stage, state === 'playing' && open === undefined);
  const shape = useShape(player);
  const act = {
    togglePlay() {
      const isStopped = state === 'paused' || state === 'blocked';
      if (isStopped) void player.current?.play();
      else player.current?.pause();
    },
    toggleSound() {
      if (sound.muted) void player.current?.unmute();
      else player.current?.mute();
    },
    setVolume: (volume: number) => player.current?.setVolume(volume),
    toggle: (panel: OpenPanel) => setOpen((now) => (now === panel ? undefined : panel)),
    fullscreen: () => toggleFullscreen(stage.current, player.current),
    close: () => setOpen(undefined),
  };
  useShortcuts(act);
  const choose = (wanted: Mode) => {
    setMode(wanted);
    setOpen(undefined);
  };
  return (
    <div class="watch" data-state={state}>
      <header class="watch-head">
        <Brand />
      </header>
      <main
        class="stage"
        ref={stage}
        data-state={state}
        data-idle={isIdle}
        data-shape={shape}
      >
        <Ambient player={player} />
        <lamplight-player ref={player} room={id} protocol={mode} token={query.get('token') ?? undefined} />
        <div class="shade" />
        <div class="top">
          <ShowPill room={room} />
          <span class="top-end">
            {isOnAir && <span class="live-badge">Live</span>}
            <a class="icon-button leave" href="/" aria-label="All live shows">
              <CloseIcon />
            </a>
          </span>
        </div>
        <Notice
          detail={detail}
          retry={() => player.current?.connect()}
          play={() => void player.current?.play()}
        />
        <div class="bottom">
          <CardOverlay card={isOnAir ? current : undefined} dismiss={dismiss} />
          {isOnAir && state !== 'paused' && sound.muted && (
            <button type="button" class="unmute" onClick={act.toggleSound}>
              <SoundOffIcon />
              Tap for sound
            </button>
          )}
          {hasControls && (
            <Controls state={state} sound={sound} open={open} cards={history.length} act={act} />
          )}
        </div>
        {open && (
          <Panel key={open} title={PANEL_TITLES[open]} close={act.close}>
            {open === 'stats' && <StatList player={player} />}
            {open === 'cards' && <CardList cards={history} isOver={state === 'ended'} />}
            {open === 'protocol' && (
              <ProtocolMenu mode={mode} protocol={detail.protocol} choose={choose} />
            )}
          </Panel>
        )}
        <p class="sr-only" role="status">
          {spokenState(detail)}
        </p>
      </main>
      {state !== 'unknown' && <About room={room} />}
      {state !== 'unknown' && <Side cards={history} isOver={state === 'ended'} />}
    </div>
  );
}

function ShowPill({ room }: { room: Room | undefined }) {
  if (!room) return null;
  return (
    <div class="show-pill">
      <Avatar name={room.creator?.name ?? room.title} />
      <span>
        <b>{room.creator?.name ?? 'Lamplight'}</b>
        <h1>{room.title}</h1>
      </span>
    </div>
  );
}

type PhoneVideo = HTMLVideoElement & { webkitEnterFullscreen?: () => void };

function toggleFullscreen(stage: HTMLElement | null, player: LamplightPlayer | null): void {
  if (document.fullscreenElement) void document.exitFullscreen();
  else if (stage?.requestFullscreen) void stage.requestFullscreen().catch(() => undefined);
  else (player?.video as PhoneVideo | undefined)?.webkitEnterFullscreen?.();
}
