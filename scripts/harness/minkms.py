"""The frames of the MinKMS protocol, as far as tests that speak it need them."""

from __future__ import annotations

CREATE, GENERATE, DECRYPT, STATUS = 201, 207, 206, 204


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(fields: dict[int, str | bytes | int]) -> bytes:
    out = b""
    for number, value in fields.items():
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def frame(command: int, fields: dict[int, str | bytes | int]) -> bytes:
    payload = message(fields)
    return command.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload


def frames(body: bytes) -> list[tuple[int, dict[int, bytes | int]]]:
    """The commands of an answer, each with the fields of its message."""
    found = []
    while body:
        command, length = int.from_bytes(body[:2], "big"), int.from_bytes(body[2:6], "big")
        found.append((command, fields(body[6 : 6 + length])))
        body = body[6 + length :]
    return found


def fields(payload: bytes) -> dict[int, bytes | int]:
    found: dict[int, bytes | int] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(payload):
        tag = number()
        if tag & 7 == 2:
            length = number()
            found[tag >> 3], at = payload[at : at + length], at + length
        else:
            found[tag >> 3] = number()
    return found
