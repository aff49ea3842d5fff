/** The card over the picture. */
import { hueOf, initialsOf } from '../ui/brand';
import { CloseIcon } from '../ui/icons';
import type { CardView } from './card_view';
import type { ShownCard } from './use_player';

export function CardOverlay({ card, dismiss }: { card: ShownCard | undefined; dismiss(): void }) {
  return (
    <div class="card-place" aria-live="polite">
      {card && (
        <article class="card" key={card.id} data-card-id={card.id}>
          <CardTile title={card.view.title} />
          <div class="card-words">
            <p class="eyebrow">{card.view.eyebrow}</p>
            <h2 class="card-title">{card.view.title}</h2>
            {card.view.note && <p class="card-note">{card.view.note}</p>}
            <CardPrice view={card.view} />
          </div>
          <button type="button" class="card-close" onClick={dismiss} aria-label="Dismiss this card">
            <CloseIcon />
          </button>
        </article>
      )}
    </div>
  );
}

export function CardTile({ title }: { title: string }) {
  return (
    <span class="card-tile" style={{ '--hue': hueOf(title) }} aria-hidden="true">
      {initialsOf(title)}
    </span>
  );
}

export function CardPrice({ view }: { view: CardView }) {
  if (!view.price) return null;
  return (
    <p class="card-price">
      {view.price}
      {view.was && (
        <s>
          <span class="sr-only">before: </span>
          {view.was}
        </s>
      )}
    </p>
  );
}
