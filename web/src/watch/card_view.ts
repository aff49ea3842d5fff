/**
 * From a card's envelope to what is drawn: words and a price, or nothing.
 *
 * Actions of later versions arrive here too. What carries a title is drawn; what only changes
 * state (`unpin`, `explain_end`, …) is not.
 */
import type { CardEnvelope, Money } from '@lamplight/player';

export interface CardView {
  eyebrow: string;
  title: string;
  note: string | undefined;
  price: string | undefined;
  was: string | undefined;
}

const EYEBROWS: Record<string, string> = {
  custom: 'On screen now',
  pin: 'On screen now',
  explain_start: 'Being shown',
  price: 'New price',
  deal_announce: 'Deal coming up',
  deal_open: 'Deal is open',
  deal_close: 'Deal is over',
  sold_out: 'Sold out',
  restock: 'Back in stock',
  coupon_pin: 'Coupon',
};

function words(value: unknown): string | undefined {
  const text = typeof value === 'string' ? value.trim() : '';
  return text === '' ? undefined : text;
}

function isMoney(value: unknown): value is Money {
  if (typeof value !== 'object' || value === null) return false;
  const { amount, currency } = value as Record<string, unknown>;
  return Number.isSafeInteger(amount) && typeof currency === 'string';
}

/** Money in minor units, as this viewer's language writes it. */
export function formatMoney(money: Money, locale?: string): string {
  try {
    const format = new Intl.NumberFormat(locale, { style: 'currency', currency: money.currency });
    const digits = format.resolvedOptions().maximumFractionDigits ?? 2;
    return format.format(money.amount / 10 ** digits);
  } catch {
    // Not a currency code this browser knows: the numbers still tell the price.
    return `${(money.amount / 100).toFixed(2)} ${money.currency}`.trim();
  }
}

function price(value: unknown, locale?: string): string | undefined {
  return isMoney(value) ? formatMoney(value, locale) : words(value);
}

/** What to draw for a card; `undefined` for one that shows nothing by itself. */
export function viewCard(card: CardEnvelope, locale?: string): CardView | undefined {
  const { data } = card;
  const title = words(data.title);
  if (!title) return undefined;
  return {
    eyebrow: EYEBROWS[card.action] ?? 'From the show',
    title,
    note: words(data.note) ?? words(data.subtitle),
    price: price(data.price, locale),
    was: price(data.compare_at, locale),
  };
}
