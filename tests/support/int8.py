"""Machines that compute in int8, and those that do not."""

import pytest

from captioner.errors import CaptionerError
from captioner.lstm.inference.int8 import require_int8


def _is_here() -> bool:
    try:
        require_int8()
    except CaptionerError:
        return False
    return True


needs_int8 = pytest.mark.skipif(not _is_here(), reason="needs a CPU with instructions for int8")
