/** What the page says in place of the picture: words and, where one helps, an act. */
import { HOST_AWAY, type PlayerState, type StateDetail } from '@lamplight/player';
import type { ComponentChildren } from 'preact';
import { whenStarts } from '../home/when';
import { PlayIcon } from '../ui/icons';

interface NoticeProps {
  detail: StateDetail;
  retry(): void;
  play(): void;
}

/** What assistive technology hears when the state changes. */
export function spokenState({ state, room_state, reason }: StateDetail): string {
  const words: Record<PlayerState, string> = {
    idle: '',
    connecting: 'Joining the show',
    waiting: room_state === 'interrupted' ? 'The show is interrupted' : 'The show is not live yet',
    playing: 'The show is playing',
    reconnecting: reason === HOST_AWAY ? 'Waiting for the host' : 'Reconnecting',
    blocked: 'Press play to watch',
    paused: 'Paused',
    ended: 'The show has ended',
    unknown: 'This show was not found',
    denied: 'This show is private',
    unplayable: 'This show cannot be played here',
  };
  return words[state];
}

export function Notice({ detail, retry, play }: NoticeProps) {
  switch (detail.state) {
    case 'idle':
    case 'playing':
      return null;
    case 'connecting':
      return (
        <Panel>
          <span class="spinner" />
          <h2>Joining the show…</h2>
        </Panel>
      );
    case 'reconnecting':
      return (
        <div class="reconnecting">
          <span class="spinner" />
          {detail.reason === HOST_AWAY ? 'Waiting for the host…' : 'Reconnecting…'}
        </div>
      );
    case 'waiting':
      return <Waiting detail={detail} />;
    case 'blocked':
    case 'paused':
      return (
        <button type="button" class="big-play" onClick={play}>
          <PlayIcon />
          <span class="sr-only">
            {detail.state === 'paused' ? 'Back to live' : 'Watch the show'}
          </span>
        </button>
      );
    case 'ended':
      return (
        <Panel>
          <h2>This show has ended</h2>
          <p>Thank you for watching.</p>
          <a class="button button-primary" href="/">
            See what else is live
          </a>
        </Panel>
      );
    case 'unknown':
      return (
        <Panel>
          <h2>We cannot find this show</h2>
          <p>The link may be wrong, or the show was removed.</p>
          <a class="button button-primary" href="/">
            See what is live
          </a>
        </Panel>
      );
    case 'denied':
      return (
        <Panel>
          <h2>This show is private</h2>
          <p>Open it with the link you were given; a link is good for a while only.</p>
          <button type="button" class="button button-primary" onClick={retry}>
            Try again
          </button>
        </Panel>
      );
    case 'unplayable':
      return (
        <Panel>
          <h2>This browser cannot play the show</h2>
          <p>{detail.reason ?? 'Neither real-time video nor HLS works here.'}</p>
          <button type="button" class="button button-primary" onClick={retry}>
            Try again
          </button>
        </Panel>
      );
  }
}

function Waiting({ detail }: { detail: StateDetail }) {
  const isBack = detail.room_state === 'interrupted';
  return (
    <Panel>
      <span class="beacon" />
      <h2>{isBack ? 'We will be right back' : 'The show has not started yet'}</h2>
      <p>
        {isBack
          ? 'The host lost the connection.'
          : `${whenStarts(detail.starts_at, detail.room_state ?? '')}.`}
        <br />
        This page starts by itself.
      </p>
    </Panel>
  );
}

function Panel({ children }: { children: ComponentChildren }) {
  return <div class="notice">{children}</div>;
}
