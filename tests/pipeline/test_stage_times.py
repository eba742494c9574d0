import pytest

from captioner.jobs.pipeline.stage_times import limiting_step

NETWORK = {"encode": 3.0, "search": 2.0, "commit": 0.1}


@pytest.mark.parametrize(
    ("seconds", "took", "limit"),
    [
        ({"fetch": 8.0, "decode": 4.0, **NETWORK}, 6.0, "encode"),  # threads fetch meanwhile
        ({"fetch": 40.0, "decode": 4.0, **NETWORK}, 20.0, "fetch"),
        ({"fetch": 1.0, "decode": 40.0, **NETWORK}, 20.0, "decode"),
        ({"fetch": 1.0, "decode": 1.0, **NETWORK, "commit": 9.0}, 15.0, "commit"),
        ({"fetch": 5.0}, 1.0, "fetch"),
    ],
)
def test_the_limit_is_the_stage_that_the_others_wait_for(
    seconds: dict[str, float], took: float, limit: str
) -> None:
    assert limiting_step(seconds, took) == limit
