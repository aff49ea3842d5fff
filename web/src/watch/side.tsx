/** Beside the picture: whose show it is, and what has been shown in it so far. */
import type { Room } from '../api/rooms';
import { Avatar } from '../ui/brand';
import { CardPrice, CardTile } from './card_overlay';
import type { ShownCard } from './use_player';

export function Side({ room, cards }: { room: Room | undefined; cards: ShownCard[] }) {
  return (
    <aside class="side" aria-label="About this show">
      <header class="side-head">
        <h1>{room?.title ?? 'Live show'}</h1>
        {room?.creator && (
          <p class="side-by">
            <Avatar name={room.creator.name} />
            <span>
              <b>{room.creator.name}</b>
              {room.creator.handle && <small>@{room.creator.handle}</small>}
            </span>
          </p>
        )}
      </header>
      <h2 class="side-title" id="shown">
        Shown in this show
      </h2>
      <CardList cards={cards} />
    </aside>
  );
}

export function CardList({ cards }: { cards: ShownCard[] }) {
  if (cards.length === 0) {
    return (
      <p class="side-empty">
        Items appear here the moment the host shows them, on the very same frame.
      </p>
    );
  }
  const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
  return (
    <ol class="card-list">
      {cards.map(({ id, view, at }) => (
        <li key={id}>
          <CardTile title={view.title} />
          <span class="card-list-words">
            <b>{view.title}</b>
            <time dateTime={new Date(at).toISOString()}>{clock.format(at)}</time>
          </span>
          <CardPrice view={view} />
        </li>
      ))}
    </ol>
  );
}
