"""Which doubtful images are chosen, against sorting them all in memory."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.jobs.planning import doubted
from captioner.jobs.planning.doubted import Choice, DoubtfulImages
from captioner.jobs.planning.partitions import NO_WORK

confidences = st.sampled_from([0.0, 0.1, 0.25, 0.25000003, 0.5, 1.0]) | st.floats(0, 1, width=32)
images = st.lists(st.tuples(confidences, st.booleans()), max_size=40)
choices = st.builds(
    Choice,
    below=st.none() | st.floats(0, 1, width=32),
    share=st.none() | st.fractions(0, 1),
    most=st.none() | st.integers(1, 20),
)


def in_memory(doubts: list[tuple[float, bool]], choice: Choice) -> tuple[list[int], int]:
    """Return the positions of the chosen images, and how many the choice is about."""
    order = sorted(range(len(doubts)), key=lambda at: (np.float32(doubts[at][0]), at))
    if choice.share is not None:
        order = order[: int(choice.share * len(order))]
    if choice.below is not None:
        order = [at for at in order if np.float32(doubts[at][0]) < np.float32(choice.below)]
    wanted = [at for at in order if not doubts[at][1]]
    return sorted(wanted[: choice.most]), len(wanted)


@settings(deadline=None)
@given(images, choices, st.integers(1, 7))
def test_the_chosen_images_are_the_least_certain(
    doubts: list[tuple[float, bool]], choice: Choice, block: int
) -> None:
    at = np.arange(len(doubts))
    frame = pd.DataFrame(doubts, columns=["first_confidence", "done"]).assign(
        position=2 * at,
        file=100 + at,
        first_confidence=lambda rows: rows["first_confidence"].astype("float32"),
    )
    actions = np.full(2 * len(doubts) + 1, NO_WORK, np.int32)
    with TemporaryDirectory() as folder, patch.object(doubted, "BLOCK", block):
        listed = DoubtfulImages(Path(folder, "doubtful"), len(actions))
        listed.add(frame)
        counted = listed.choose(choice, actions)
    expected, found = in_memory(doubts, choice)
    assert counted == found
    assert np.flatnonzero(actions != NO_WORK).tolist() == [2 * at for at in expected]
    assert actions[actions != NO_WORK].tolist() == [100 + at for at in expected]
