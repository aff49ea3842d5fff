/** One show in the list, as a link to its watch page. */
import type { Room } from '../api/rooms';
import { pathOfRoom } from '../route';
import { Avatar, hueOf, initialsOf } from '../ui/brand';
import { whenStarts } from './when';

export function RoomCard({ room }: { room: Room }) {
  const isLive = room.state === 'live';
  return (
    <a class="room-card" href={pathOfRoom(room.id)}>
      <span class="room-cover" style={{ '--hue': hueOf(room.id) }} aria-hidden="true">
        <span class="room-cover-word">{initialsOf(room.title)}</span>
      </span>
      <span class="room-badge">
        {isLive ? <span class="live-badge">Live</span> : <span class="soon-badge">Soon</span>}
      </span>
      <span class="room-words">
        <span class="room-title">{room.title}</span>
        <span class="room-by">
          {room.creator && <Avatar name={room.creator.name} />}
          <span class="room-by-words">
            {room.creator?.name ?? 'Live show'}
            {!isLive && <small>{whenStarts(room.startsAt, room.state)}</small>}
          </span>
        </span>
      </span>
    </a>
  );
}
