"""Errors a user can act on: each message names the input and the remedy."""


class CaptionerError(Exception):
    """Base class of every error that this package raises on purpose."""


class ImageError(CaptionerError):
    """An image that cannot be captioned; the others can."""


class UnreadableImage(ImageError):
    """Bytes that are not an image, or a damaged one."""


class UnsupportedImage(ImageError):
    """A file that may be sound, but is of a format or kind that is not opened."""


class ImageTooLarge(ImageError):
    """An image with more pixels than the limits allow, or that needs more memory to decode."""


class OutOfMemory(ImageError):
    """An image for which there was not enough memory; there may be more another time."""


class RejectedCaption(ImageError):
    """A caption that breaks the house rules, or an answer that is none."""


class CaptionerUnavailable(CaptionerError):
    """A captioner that cannot caption now; another time might do better."""


class BudgetSpent(CaptionerUnavailable):
    """A limit on requests or cost that is reached."""


class CheckpointError(CaptionerError):
    """A model directory that is missing, incomplete or inconsistent."""


class DatasetError(CaptionerError):
    """Captions or images for training that are missing or malformed."""


class MissingExtraError(CaptionerError):
    """A missing package of an optional extra."""
