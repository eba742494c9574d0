"""Colour spaces that a file names by a code or by numbers -> an ICC profile.

The codes are those of ITU-T H.273, which PNG (cICP), AVIF and HEIF (nclx) share.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class Primaries(NamedTuple):
    """The chromaticities x, y of white, red, green and blue."""

    white_x: float = 0.3127
    white_y: float = 0.3290
    red_x: float = 0.640
    red_y: float = 0.330
    green_x: float = 0.300
    green_y: float = 0.600
    blue_x: float = 0.150
    blue_y: float = 0.060


_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
SRGB = Primaries()
_PRIMARIES = {
    4: Primaries(*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: Primaries(*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: Primaries(*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: Primaries(*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: Primaries(*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: Primaries(*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: Primaries(*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: Primaries(*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: Primaries(*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_WHITE_NITS = 203.0  # of a white page in HDR (ITU-R BT.2408); what is brighter is cut
_STEPS = 4096
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _srgb(values: Values) -> Values:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _pq(values: Values) -> Values:
    root = values ** (1 / 78.84375)
    light = (root - 0.8359375).clip(0) / (18.8515625 - 18.6875 * root)
    return 10_000 / _WHITE_NITS * light ** (1 / 0.1593017578125)


def _hlg(values: Values) -> Values:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return 1000 / _WHITE_NITS * scene**1.2


# Transfer functions of video, 1, 6, 14 and 15, are shown by that of sRGB, as in browsers.
_CURVES: dict[int, Callable[[Values], Values]] = {
    4: lambda values: values**2.2,
    5: lambda values: values**2.8,
    8: lambda values: values,
    16: _pq,
    18: _hlg,
}


@lru_cache(maxsize=64)
def profile_of_codes(primaries: int, transfer: int) -> bytes | None:
    """Return the profile of codes for primaries and transfer function; None for sRGB.

    Codes that are unknown stand for those of sRGB.
    """
    space, curve = _PRIMARIES.get(primaries, SRGB), _CURVES.get(transfer, _srgb)
    return None if space == SRGB and curve is _srgb else matrix_profile(space, curve)


@lru_cache(maxsize=64)
def profile_of_gamma(exponent: float | None, primaries: Primaries) -> bytes | None:
    """Return the profile of a power, or of sRGB's curve, and of primaries; None for sRGB.

    Impossible primaries stand for those of sRGB.
    """
    space = primaries if is_possible(primaries) else SRGB
    if exponent is None:
        return None if space == SRGB else matrix_profile(space, _srgb)
    return matrix_profile(space, lambda values: values**exponent)


def is_possible(primaries: Primaries) -> bool:
    """Return whether chromaticities span a triangle, with a white that has some light."""
    red, green, blue = (np.array(primaries[place : place + 2]) for place in (2, 4, 6))
    area = np.linalg.det(np.stack([green - red, blue - red]))
    return abs(float(area)) > 1e-3 and min(primaries[1::2]) > 1e-4


def matrix_profile(primaries: Primaries, curve: Callable[[Values], Values]) -> bytes:
    """Return an ICC profile (2.4) of three primaries and one curve from value to light, 0 to 1."""
    columns = [struct.pack(">4s4x3i", b"XYZ ", *_fixed(xyz)) for xyz in _colorants(primaries).T]
    light = np.rint(65535 * curve(np.linspace(0, 1, _STEPS)).clip(0, 1)).astype(">u2")
    curves = struct.pack(">4s4xI", b"curv", _STEPS) + light.tobytes()
    white = struct.pack(">4s4x3i", b"XYZ ", *_fixed(_D50))
    names = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ")
    tags = dict(zip(names, (white, *columns), strict=True))
    return _file(tags, dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curves))


def _fixed(values: Values) -> list[int]:
    return [round(65536 * float(value)) for value in values]


def _colorants(primaries: Primaries) -> Values:
    """Return the XYZ of red, green and blue as columns, adapted from their white to D50."""
    white, *colours = (_xyz(*primaries[place : place + 2]) for place in (0, 2, 4, 6))
    matrix = np.stack(colours, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ matrix


def _xyz(x: float, y: float) -> Values:
    return np.array([x / y, 1, (1 - x - y) / y])


def _file(tags: dict[bytes, bytes], shared: dict[bytes, bytes]) -> bytes:
    """Return a profile with its header; the tags of `shared` have one content."""
    place = 132 + 12 * (len(tags) + len(shared))
    table, contents = [], []
    for name, content in tags.items():
        table.append(struct.pack(">4s2I", name, place, len(content)))
        contents.append(content)
        place += len(content)
    common = next(iter(shared.values()))
    table += [struct.pack(">4s2I", name, place, len(common)) for name in shared]
    body = struct.pack(">I", len(table)) + b"".join((*table, *contents, common))
    head = struct.pack(">I4xI4s4s4s", 128 + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return (
        (head + date + b"acsp").ljust(68, b"\0")
        + struct.pack(">3i", *_fixed(_D50))
        + bytes(48)
        + body
    )
