/** The player element's state as the page's state. */
import type { CardDetail, LamplightPlayer, PlayerState, StateDetail } from '@lamplight/player';
import type { RefObject } from 'preact';
import { useLayoutEffect, useState } from 'preact/hooks';
import { type CardView, viewCard } from './card_view';

/** A card as the page keeps it. */
export interface ShownCard {
  id: string;
  view: CardView;
  at: number;
}

const HISTORY_MAX = 30;

/** Listens to one event of the player for as long as the page shows it. */
function usePlayerEvent<K extends keyof HTMLElementEventMap>(
  player: RefObject<LamplightPlayer | null>,
  type: K,
  listen: (event: HTMLElementEventMap[K]) => void,
): void {
  // Before the element's first event, which comes in the turn after it is put into the page.
  useLayoutEffect(() => {
    const element = player.current;
    if (!element) return;
    element.addEventListener(type, listen);
    return () => element.removeEventListener(type, listen);
  }, []);
}

export function usePlayerState(player: RefObject<LamplightPlayer | null>): StateDetail {
  const [detail, setDetail] = useState<StateDetail>({
    state: 'connecting' satisfies PlayerState,
    previous: 'idle',
    protocol: undefined,
    reason: undefined,
    room_state: undefined,
    starts_at: undefined,
  });
  usePlayerEvent(player, 'lamplight-state', (event) => setDetail(event.detail));
  return detail;
}

export function useSound(player: RefObject<LamplightPlayer | null>) {
  const [sound, setSound] = useState({ muted: true, volume: 1 });
  usePlayerEvent(player, 'lamplight-sound', (event) => setSound(event.detail));
  return sound;
}

/** The newest first; an item shown again moves up instead of being listed twice. */
export function withShown(before: ShownCard[], shown: ShownCard): ShownCard[] {
  const others = before.filter((it) => it.id !== shown.id && it.view.title !== shown.view.title);
  return [shown, ...others].slice(0, HISTORY_MAX);
}

/** The card in force and those before it, newest first. */
export function useCards(player: RefObject<LamplightPlayer | null>) {
  const [current, setCurrent] = useState<ShownCard>();
  const [history, setHistory] = useState<ShownCard[]>([]);
  const take = ({ id, card, is_late }: CardDetail) => {
    const view = card && viewCard(card);
    if (!view) return;
    // A viewer who has just joined hears of cards that others saw long before.
    const at = is_late && card.issued_us > 0 ? card.issued_us / 1000 : Date.now();
    const shown = { id, view, at };
    setCurrent(shown);
    setHistory((before) => withShown(before, shown));
  };
  // The event is fired inside the frame callback; rendering follows in the same turn of the
  // browser, before that frame is painted.
  usePlayerEvent(player, 'lamplight-card', (event) => take(event.detail));
  usePlayerEvent(player, 'lamplight-cue-end', (event) => {
    setCurrent((now) => (now?.id === event.detail.id ? undefined : now));
  });
  usePlayerEvent(player, 'lamplight-state', ({ detail: { state } }) => {
    // The next broadcast begins with no card but its own.
    if (state === 'waiting' || state === 'ended') setCurrent(undefined);
  });
  return { current, history, dismiss: () => setCurrent(undefined) };
}
