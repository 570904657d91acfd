"""Frames, values and effects as bytes; crc32c."""

from typing_extensions import Buffer

def checksum(data: Buffer, crc: int = 0) -> int:
    """crc32c of ``data``, continuing from ``crc``."""

def check_frame(data: Buffer, max_frame: int = 0xFFFFFFFF) -> tuple[int, int]:
    """``(code, need)``: what frame_check says of these bytes. Code 0 is a whole, valid frame of ``need`` bytes."""
