/** Around the picture: whose show it is, and what has been shown in it so far. */
import type { Room } from '../api/rooms';
import { Avatar } from '../ui/brand';
import { CardPrice, CardTile } from './card_overlay';
import type { ShownCard } from './use_player';

/** Under the picture on wide screens: the show's title and its host. */
export function About({ room }: { room: Room | undefined }) {
  return (
    <header class="about">
      <h1>{room?.title ?? 'Live show'}</h1>
      {room?.creator && (
        <p class="about-by">
          <Avatar name={room.creator.name} />
          <span>
            <b>{room.creator.name}</b>
            {room.creator.handle && <small>@{room.creator.handle}</small>}
          </span>
        </p>
      )}
    </header>
  );
}

interface CardListProps {
  cards: ShownCard[];
  isOver: boolean;
}

export function Side({ cards, isOver }: CardListProps) {
  return (
    <aside class="side" aria-labelledby="shown">
      <h2 id="shown">Shown in this show</h2>
      <CardList cards={cards} isOver={isOver} />
    </aside>
  );
}

export function CardList({ cards, isOver }: CardListProps) {
  if (cards.length === 0) {
    return (
      <p class="side-empty">
        {isOver
          ? 'Nothing was shown while you were here.'
          : 'Items appear here the moment the host shows them.'}
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
