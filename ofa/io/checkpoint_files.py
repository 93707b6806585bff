"""How checkpoint files begin, for readers with torch and without it: an archive of torch 1.6 or
later, or the JSON header of safetensors."""

ARCHIVE = b"PK\x03\x04"
METADATA_KEY = "ofa"  # of safetensors metadata; its value is JSON: all of a checkpoint but tensors
MAX_HEADER = 32_000_000  # bytes of a header that is read: some 200 000 tensors


def is_safetensors(start: bytes) -> bool:
    """Whether a file begins so (9 bytes or more): the length of a JSON header, then the header."""
    length = int.from_bytes(start[:8], "little")
    return len(start) >= 9 and 1 < length <= MAX_HEADER and start[8:9] == b"{"
