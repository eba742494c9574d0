"""The memory of the GPUs of this machine, which the driver shares out without opening them."""

import subprocess

QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
SECONDS = 30.0
UNKNOWN = 8 * 2**30  # bytes that are assumed where nothing tells


def free_gpu_memory() -> int:
    """Return the bytes that are free on the fullest GPU of this machine."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS, check=True)
        return min(int(line) for line in answer.stdout.splitlines()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):  # not installed, or a part of a GPU
        return UNKNOWN
