"""Caption a handful of freely licensed photographs: `python -m captioner.jobs.demo FOLDER`.

They come with scikit-image (public domain and CC0); a damaged file lies beside them.
"""

import sys
from pathlib import Path

from PIL import Image

from captioner.jobs.cli.text import summary
from captioner.jobs.config.job import JobConfig
from captioner.jobs.run import run_job

PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "hubble_deep_field", "rocket")
PRECISION = 0.75  # three in four
COLUMNS = """\
Each file has one row: `confidence` is the probability that people would accept the caption,
`needs_review` marks the captions that a person should check before use, and `status` says why a
file has no caption. Of the unmarked captions, three in four were acceptable on the photographs
that the confidence was calibrated on."""

NEXT = """\
Decide about the captions: .venv/bin/captioner review {out}
Caption your own photos:  .venv/bin/captioner run PHOTOS --out CAPTIONS --target-precision 0.75"""


def main() -> int:
    """Write the photographs, run the job, query its table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    photos, out = write_photographs(folder / "photos"), folder / "captions-of-photos"
    print(f"Captioning {photos} (six photographs, one damaged file) into {out}.", flush=True)
    print("For so few files, starting a worker takes longer than captioning.\n", flush=True)
    report = run_job(JobConfig(source=photos, out=out, target_precision=PRECISION))
    print(summary(report), COLUMNS, answer(query(out)), NEXT.format(out=out), sep="\n\n")
    return report.exit_code


def write_photographs(folder: Path) -> Path:
    """Save the photographs as JPEG files, and half of one as a damaged file."""
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        path = folder / f"{name.split('_')[0]}.jpg"
        if not path.is_file():
            Image.fromarray(getattr(data, name)()).save(path, quality=95)
    whole = (folder / "coffee.jpg").read_bytes()
    damaged = folder / "damaged.jpg"
    if not damaged.is_file():
        damaged.write_bytes(whole[: len(whole) // 2])
    return folder


def query(out: Path) -> str:
    """Return a query of the whole table, the surest caption first."""
    return f"""\
SELECT parse_filename(image_uri, true) AS image, caption, round(confidence, 2) AS confidence,
       needs_review, status
FROM '{out}/captions/*.parquet'
ORDER BY confidence DESC NULLS LAST"""


def answer(query: str) -> str:
    """Return a query and DuckDB's answer to it."""
    import duckdb

    return f"{query}\n\n{duckdb.sql(query)}"


if __name__ == "__main__":
    raise SystemExit(main())
