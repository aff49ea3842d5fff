/** The bar under the picture. */
import type { PlayerState } from '@lamplight/player';
import type { ComponentChildren } from 'preact';
import {
  BagIcon,
  ExpandIcon,
  InfoIcon,
  PauseIcon,
  PlayIcon,
  SoundOffIcon,
  SoundOnIcon,
  TuneIcon,
} from '../ui/icons';

export type OpenPanel = 'stats' | 'protocol' | 'cards' | undefined;

interface ControlsProps {
  state: PlayerState;
  sound: { muted: boolean; volume: number };
  open: OpenPanel;
  cards: number;
  act: {
    togglePlay(): void;
    toggleSound(): void;
    setVolume(volume: number): void;
    toggle(panel: OpenPanel): void;
    fullscreen(): void;
  };
}

export function Controls({ state, sound, open, cards, act }: ControlsProps) {
  const isPaused = state === 'paused' || state === 'blocked';
  return (
    <div class="controls" role="group" aria-label="Player controls">
      <Button label={isPaused ? 'Play' : 'Pause'} press={act.togglePlay}>
        {isPaused ? <PlayIcon /> : <PauseIcon />}
      </Button>
      <Button label={sound.muted ? 'Sound on' : 'Sound off'} press={act.toggleSound}>
        {sound.muted ? <SoundOffIcon /> : <SoundOnIcon />}
      </Button>
      <input
        class="volume"
        type="range"
        min="0"
        max="1"
        step="0.05"
        aria-label="Volume"
        value={sound.muted ? 0 : sound.volume}
        style={{ '--level': sound.muted ? 0 : sound.volume }}
        onInput={(event) => act.setVolume(Number(event.currentTarget.value))}
      />
      <span class="controls-space" />
      <span class="only-narrow">
        <Button label="Items shown" press={() => act.toggle('cards')} isOpen={open === 'cards'}>
          <BagIcon />
          {cards > 0 && <span class="count">{cards}</span>}
        </Button>
      </span>
      <Button label="Playback" press={() => act.toggle('protocol')} isOpen={open === 'protocol'}>
        <TuneIcon />
      </Button>
      <Button label="Stream details" press={() => act.toggle('stats')} isOpen={open === 'stats'}>
        <InfoIcon />
      </Button>
      <Button label="Full screen" press={act.fullscreen}>
        <ExpandIcon />
      </Button>
    </div>
  );
}

interface ButtonProps {
  label: string;
  press(): void;
  isOpen?: boolean;
  children: ComponentChildren;
}

function Button({ label, press, isOpen, children }: ButtonProps) {
  return (
    <button
      type="button"
      class="icon-button"
      aria-label={label}
      title={label}
      aria-expanded={isOpen}
      onClick={press}
    >
      {children}
    </button>
  );
}
