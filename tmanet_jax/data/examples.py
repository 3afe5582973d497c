"""Reads tf.train.Example messages whose values are bytes, without copying them, and writes such.

TFDS has one such message a record. Its own parser copies the values, which for frames of full size
adds a third to the time of reading the record; what it writes differs from process to process in
the order of the features. The messages nest as

    Example { Features features = 1 }          Features { map<string, Feature> feature = 1 }
    Feature { BytesList bytes_list = 1 }       BytesList { repeated bytes value = 1 }

(tensorflow/core/example/example.proto, feature.proto; a map is a repeated message {key = 1,
value = 2}), and a field is a varint (number << 3 | 2), a varint length, and that many bytes
(https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterator, Mapping, Sequence

_BYTES_OR_MESSAGE = 2


def parse_example(message: bytes) -> Mapping[str, Sequence[memoryview]]:
    """The values of each feature, as views of the message.

    Raises:
        ValueError: the message is torn, or holds something else than bytes.
    """
    values: dict[str, Sequence[memoryview]] = {}
    for features in _field(memoryview(message), 1):
        for entry in _field(features, 1):
            (key,) = _field(entry, 1)
            values[bytes(key).decode()] = [
                value
                for feature in _field(entry, 2)
                for bytes_list in _field(feature, 1)
                for value in _field(bytes_list, 1)
            ]
    return values


def serialize_example(values: Mapping[str, bytes]) -> bytes:
    """A message of one value a feature, in the order in which they are given."""
    entries = [
        _written(1, _written(1, key.encode()) + _written(2, _written(1, _written(1, value))))
        for key, value in values.items()
    ]
    return _written(1, b"".join(entries))


def _written(number: int, content: bytes) -> bytes:
    """A field."""
    varint, left = bytearray([number << 3 | _BYTES_OR_MESSAGE]), len(content)
    while left > 0x7F:
        varint.append(left & 0x7F | 0x80)
        left >>= 7
    varint.append(left)
    return bytes(varint) + content


def _field(message: memoryview, number: int) -> Iterator[memoryview]:
    """All values of one field."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        if key & 7 != _BYTES_OR_MESSAGE:
            raise ValueError(f"a field of wire type {key & 7} where bytes were expected")
        length, position = _varint(message, position)
        if position + length > len(message):
            raise ValueError(f"a value of {length} bytes where {len(message) - position} are left")
        if key >> 3 == number:
            yield message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        if position == len(message):
            raise ValueError("the message ends within a number")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
