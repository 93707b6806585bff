"""A shuffled order without a list of it: the row at any place, computed when it is asked for."""

import hashlib

ROUNDS = 4


def shuffled(place: int, size: int, key: str) -> int:
    """Number in [0, size) that stands at ``place``; every number stands at one place. Another
    ``key``, another order.

    A Feistel network over the next even power of two; numbers beyond ``size`` are passed through it
    again.
    """
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        high, low = place >> bits, place & ((1 << bits) - 1)
        for round_ in range(ROUNDS):
            digest = hashlib.blake2b(f"{key}-{round_}-{low}".encode(), digest_size=8).digest()
            high, low = low, high ^ int.from_bytes(digest, "little") & ((1 << bits) - 1)
        place = high << bits | low
        if place < size:
            return place
