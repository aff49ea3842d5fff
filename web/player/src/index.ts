/** `@lamplight/player`: defines `<lamplight-player>` and exports its words. */
import { HOST_AWAY, LamplightPlayer } from './element';

export { HOST_AWAY, LamplightPlayer };
export type { CardEnvelope, Money } from './card';
export type {
  CardDetail,
  CueDetail,
  CueEndDetail,
  PlayerState,
  PlayerStats,
  StateDetail,
} from './events';
export type { Mode, Protocol } from './plan';

if (!customElements.get('lamplight-player')) {
  customElements.define('lamplight-player', LamplightPlayer);
}

declare global {
  interface HTMLElementTagNameMap {
    'lamplight-player': LamplightPlayer;
  }
}
