/** The stage's behaviour: chrome that leaves, keys, and the shape of the picture. */
import type { LamplightPlayer } from '@lamplight/player';
import type { RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

const IDLE_MS = 3_500;

/** Whether the controls may leave: playing, nothing open, no touch or key for a while. */
export function useIdle(stage: RefObject<HTMLElement | null>, mayLeave: boolean): boolean {
  const [isIdle, setIdle] = useState(false);
  useEffect(() => {
    const element = stage.current;
    setIdle(false);
    if (!element || !mayLeave) return;
    let timer = setTimeout(() => setIdle(true), IDLE_MS);
    const wake = () => {
      clearTimeout(timer);
      setIdle(false);
      timer = setTimeout(() => setIdle(true), IDLE_MS);
    };
    const events = ['pointermove', 'pointerdown', 'keydown', 'focusin'];
    for (const type of events) element.addEventListener(type, wake);
    return () => {
      clearTimeout(timer);
      for (const type of events) element.removeEventListener(type, wake);
    };
  }, [mayLeave]);
  return isIdle;
}

/** `tall` for a portrait picture, which may fill a phone; `wide` otherwise. */
export function useShape(player: RefObject<LamplightPlayer | null>): 'tall' | 'wide' {
  const [shape, setShape] = useState<'tall' | 'wide'>('wide');
  useEffect(() => {
    const video = player.current?.video;
    if (!video) return;
    const read = () => setShape(video.videoHeight > video.videoWidth ? 'tall' : 'wide');
    video.addEventListener('resize', read);
    return () => video.removeEventListener('resize', read);
  }, []);
  return shape;
}

interface Acts {
  togglePlay(): void;
  toggleSound(): void;
  toggle(panel: 'stats'): void;
  fullscreen(): void;
  close(): void;
}

/** Space or K, M, I, F and Escape, unless something that takes keys has the focus. */
export function useShortcuts(acts: Acts): void {
  const latest = useRef(acts);
  latest.current = acts;
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const target = event.target as HTMLElement | null;
      const takesKeys = target?.closest('input, textarea, select, [contenteditable]');
      const isPressed = event.key === ' ' && target?.closest('button, a, summary');
      if (takesKeys || isPressed) return;
      const act = actOfKey(event.key, latest.current);
      if (!act) return;
      event.preventDefault();
      act();
    };
    document.addEventListener('keydown', listen);
    return () => document.removeEventListener('keydown', listen);
  }, []);
}

function actOfKey(key: string, acts: Acts): (() => void) | undefined {
  switch (key.toLowerCase()) {
    case ' ':
    case 'k':
      return acts.togglePlay;
    case 'm':
      return acts.toggleSound;
    case 'i':
      return () => acts.toggle('stats');
    case 'f':
      return acts.fullscreen;
    case 'escape':
      return acts.close;
    default:
      return undefined;
  }
}
