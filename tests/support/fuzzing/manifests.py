"""Manifests and tables, plain, compressed and in a zip."""

from functools import partial

from tests.support.fuzzing.files import Kind, gzipped, in_zip, seeds_of, target_of

PLAIN = (".csv", ".tsv", ".jsonl", ".txt", ".parquet", ".csv.gz")
KINDS = (
    *(Kind(suffix, suffix) for suffix in PLAIN),
    Kind(".jsonl.gz", ".jsonl", packed=gzipped),
    Kind(".zip", ".csv", "zip://a.csv::{}", partial(in_zip, "a.csv")),
    Kind(".zip", ".parquet", "zip://a.parquet::{}", partial(in_zip, "a.parquet")),
)
seeds = partial(seeds_of, KINDS)
target = partial(target_of, KINDS)
