"""ICC profiles for tests, and what they mean, computed without LittleCMS."""

import struct

import numpy as np
import numpy.typing as npt

from captioner.image.colour.codes import Primaries, matrix_profile

Values = npt.NDArray[np.float64]
ADOBE = Primaries(0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
P3 = Primaries(0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
BT2020 = Primaries(0.3127, 0.3290, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
PROPHOTO = Primaries(0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
SRGB = Primaries()
D50 = (0.9642, 1, 0.8249)  # XYZ of the white of profiles


def gamma_profile(primaries: Primaries, gamma: float) -> bytes:
    """Return the profile of primaries and a power."""
    return matrix_profile(primaries, lambda values: values**gamma)


def srgb_curve_profile(primaries: Primaries) -> bytes:
    """Return the profile of primaries with the curve of sRGB."""
    return matrix_profile(primaries, _to_light)


def to_srgb(values: npt.NDArray[np.uint8], primaries: Primaries, gamma: float | None) -> Values:
    """Return the levels of sRGB, 0 to 255, of levels with these primaries and this power.

    Without a power, the curve is that of sRGB. The white of the primaries must be D65.
    """
    scaled = values / 255
    light = _to_light(scaled) if gamma is None else scaled**gamma
    matrix = np.linalg.solve(_to_xyz(SRGB), _to_xyz(primaries))
    linear = (light @ matrix.T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * encoded


def grey_profile(gamma: float) -> bytes:
    """Return a profile of grey with a power."""
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(256 * gamma))
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * each) for each in D50))
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": white, b"kTRC": curve})


def cmyk_profile(steps: int = 9) -> bytes:
    """Return a profile of inks whose colours are a table: each takes light away, black most."""
    axis = np.linspace(0, 1, steps)
    inks = np.stack(np.meshgrid(axis, axis, axis, axis, indexing="ij"), axis=-1)
    light = (1 - 0.9 * inks[..., :3] ** 1.2) * (1 - 0.95 * inks[..., 3:])  # red, green, blue
    lab = _lab(light @ _to_xyz_d50().T)
    levels = lab * [65280 / 100, 256, 256] + [0, 32768, 32768]
    table = np.rint(levels).clip(0, 65535).astype(">u2").tobytes()
    identity = struct.pack(">2H", 0, 65535)
    matrix = struct.pack(">9i", *(65536 * each for each in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    head = struct.pack(">4s4x4B", b"mft2", 4, 3, steps, 0) + matrix + struct.pack(">2H", 2, 2)
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * each) for each in D50))
    tags = {b"wtpt": white, b"A2B0": head + 4 * identity + table + 3 * identity}
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)


def _profile(kind: bytes, space: bytes, between: bytes, tags: dict[bytes, bytes]) -> bytes:
    place = 132 + 12 * len(tags)
    rows, contents = [], []
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        rows.append(struct.pack(">4s2I", name, place, len(content)))
        contents.append(content)
        place += len(content)
    head = struct.pack(">I4xI4s4s4s", place, 0x02400000, kind, space, between)
    head = (head + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp").ljust(68, b"\0")
    white = struct.pack(">3i", *(round(65536 * each) for each in D50))
    return (
        (head + white).ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(rows + contents)
    )


def _to_light(values: Values) -> Values:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_xyz(primaries: Primaries) -> Values:
    points = [primaries[place : place + 2] for place in (0, 2, 4, 6)]
    white, *colours = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(colours, axis=1)
    return matrix * np.linalg.solve(matrix, white)


def _to_xyz_d50() -> Values:
    # of sRGB, as in its ICC profile
    return np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def _lab(xyz: Values) -> Values:
    ratio = xyz / D50
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
