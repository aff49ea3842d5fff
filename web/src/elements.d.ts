/** The player element in JSX. */
import type { LamplightPlayer, Mode } from '@lamplight/player';
import type { HTMLAttributes } from 'preact';

declare module 'preact' {
  namespace JSX {
    interface IntrinsicElements {
      'lamplight-player': HTMLAttributes<LamplightPlayer> & {
        room: string;
        protocol: Mode;
        token: string | undefined;
      };
    }
  }
}
