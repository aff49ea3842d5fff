import type { CardEnvelope } from '@lamplight/player';
import { describe, expect, it } from 'vitest';
import { formatMoney, viewCard } from './card_view';

function card(action: string, data: Record<string, unknown>): CardEnvelope {
  const times = { at_us: 0, issued_us: 0, ttl_us: 0 };
  return { v: 1, room: 'room_1', seq: 1, action, ...times, entry: null, data };
}

describe('formatMoney', () => {
  it.each([
    [{ amount: 1999, currency: 'USD' }, '$19.99'],
    [{ amount: 500, currency: 'JPY' }, '¥500'],
    [{ amount: 1500, currency: 'KWD' }, 'KWD 1.500'],
    [{ amount: 1999, currency: 'not a code' }, '19.99 not a code'],
  ])('writes %j as %s', (money, words) => {
    expect(formatMoney(money, 'en-US').replace(/\u00a0/g, ' ')).toBe(words);
  });
});

describe('viewCard', () => {
  it('draws title and price of a custom card', () => {
    const view = viewCard(
      card('custom', { title: 'Mug', price: { amount: 1200, currency: 'EUR' } }),
      'en-US',
    );
    expect(view).toMatchObject({ title: 'Mug', price: '€12.00' });
  });

  it('takes a price that is already words', () => {
    expect(viewCard(card('custom', { title: 'Mug', price: '12 €' }))?.price).toBe('12 €');
  });

  it('draws an action it does not know by its title', () => {
    expect(viewCard(card('hologram', { title: 'Mug' }))?.title).toBe('Mug');
  });

  it.each([{}, { title: '' }, { title: 7 }, { price: { amount: 1, currency: 'EUR' } }])(
    'draws nothing for %j',
    (data) => {
      expect(viewCard(card('unpin', data))).toBeUndefined();
    },
  );

  it.each([{ amount: 1.5, currency: 'EUR' }, { amount: '1', currency: 'EUR' }, { amount: 1 }, 12])(
    'leaves out the price %j',
    (price) => {
      expect(viewCard(card('custom', { title: 'Mug', price }))?.price).toBeUndefined();
    },
  );
});
