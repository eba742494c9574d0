"""What codecs write to stderr about images: lines that name none."""

import ctypes
import logging
import warnings

from PIL import _imaging

_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")


def silence_codecs() -> None:
    """Leave out the warnings of Pillow and of libtiff in this process.

    The errors of images say what matters. LibRaw still writes a line about a damaged RAW file.
    """
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    library = ctypes.CDLL(_imaging.__file__)
    for name in _HANDLERS:
        set_handler = getattr(library, name, None)
        if set_handler:
            set_handler(None)
