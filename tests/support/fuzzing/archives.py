"""Archives, and archives in archives."""

from functools import partial

from tests.support.fuzzing.files import Kind, gzipped, in_zip, seeds_of, target_of


def gzipped_in_zip(data: bytes) -> bytes:
    return in_zip("a.tgz", gzipped(data))


KINDS = (
    Kind(".tar", ".tar"),
    Kind(".tgz", ".tgz"),
    Kind(".tgz", ".tar", packed=gzipped),
    Kind(".zip", ".zip", "zip://**::{}"),
    Kind(".zip", ".zip", "zip://**::zip://b.zip::{}", partial(in_zip, "b.zip")),
    Kind(".zip", ".tar", "zip://a.tar::{}", partial(in_zip, "a.tar")),
    Kind(".zip", ".tar", "zip://a.tgz::{}", gzipped_in_zip),
)
seeds = partial(seeds_of, KINDS)
target = partial(target_of, KINDS)
