"""What a viewer has seen and heard so far; printed as one JSON object for the test to judge."""

import json
import sys
import time


class Seen:
    """Counts until it has enough."""

    def __init__(self, task):
        self.began = time.monotonic()
        self.wanted = task["frames"]
        self.numbers = []
        self.size = None
        self.first_ms = None
        self.sound_ms = 0.0
        self.loudest = 0

    def picture(self, width, height, number):
        if self.first_ms is None:
            self.first_ms = (time.monotonic() - self.began) * 1_000
        self.size = [width, height]
        self.numbers.append(number)

    def sound(self, duration_ms, loudest):
        self.sound_ms += duration_ms
        self.loudest = max(self.loudest, loudest)

    @property
    def is_enough(self):
        return len(self.numbers) >= self.wanted and self.sound_ms >= self.wanted / 30 * 1_000

    def tell(self, **more):
        said = {
            "numbers": self.numbers,
            "size": self.size,
            "first_ms": self.first_ms,
            "sound_ms": self.sound_ms,
            "loudest": self.loudest,
            **more,
        }
        print(json.dumps(said), flush=True)


def fail(sentence):
    """Ends with one line that says what is wrong."""
    print(sentence, file=sys.stderr)
    sys.exit(1)
