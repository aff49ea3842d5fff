/** The viewer's choice of protocol. */
import type { Mode, Protocol } from '@lamplight/player';
import { CheckIcon } from '../ui/icons';
import { PROTOCOL_NAMES } from './stat_rows';

const CHOICES: { mode: Mode; name: string; note: string }[] = [
  { mode: 'auto', name: 'Auto', note: 'Real time where the network allows it' },
  { mode: 'whep', name: PROTOCOL_NAMES.whep, note: 'Under half a second behind' },
  { mode: 'hls', name: PROTOCOL_NAMES.hls, note: 'Two seconds behind, steadier on weak networks' },
];

interface ProtocolMenuProps {
  mode: Mode;
  protocol: Protocol | undefined;
  choose(mode: Mode): void;
}

export function ProtocolMenu({ mode, protocol, choose }: ProtocolMenuProps) {
  return (
    <div role="radiogroup" aria-label="Protocol">
      {CHOICES.map((choice) => (
        <button
          key={choice.mode}
          type="button"
          role="radio"
          aria-checked={choice.mode === mode}
          class="choice"
          onClick={() => choose(choice.mode)}
        >
          <span class="choice-words">
            <span>
              {choice.name}
              {choice.mode === 'auto' && mode === 'auto' && protocol && (
                <em>{protocol === 'whep' ? 'Real time' : 'LL-HLS'}</em>
              )}
            </span>
            <small>{choice.note}</small>
          </span>
          {choice.mode === mode && <CheckIcon />}
        </button>
      ))}
    </div>
  );
}
