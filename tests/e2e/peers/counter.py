"""The number burnt into a picture: 16 boxes, black for 1, and below them the same inverted."""

BITS = 16
# Of the picture's height: the middle of each row of boxes, which are 40 of 360 lines high.
ROWS = (20 / 360, 60 / 360)


def read(width, height, line):
    """The number, or None where the rows disagree; `line(y)` gives a line's luma."""
    top, bottom = (line(int(height * row)) for row in ROWS)
    number = 0
    for bit in range(BITS):
        x = (2 * bit + 1) * width // (2 * BITS)
        is_set = top[x] < 128
        if is_set == (bottom[x] < 128):
            return None
        number |= is_set << bit
    return number
