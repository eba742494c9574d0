"""Errors a user can act on: each message names the input and the remedy."""


class CaptionerError(Exception):
    """Base of every error this package raises on purpose."""


class ImageError(CaptionerError):
    """One image cannot be captioned; the others can."""


class UnreadableImage(ImageError):
    """The bytes are no image, or a damaged one."""


class ImageTooLarge(ImageError):
    """The image has more pixels than the limits allow."""


class CheckpointError(CaptionerError):
    """A model directory is missing, incomplete or inconsistent."""


class DatasetError(CaptionerError):
    """Captions or images for training are missing or malformed."""


class MissingExtraError(CaptionerError):
    """A package of an optional extra is not installed."""
