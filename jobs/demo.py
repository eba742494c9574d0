"""Caption a handful of freely licensed photographs: `python -m captioner.jobs.demo FOLDER`.

The photographs come with scikit-image (public domain and CC0) and scikit-learn (CC BY); they are
written as ordinary files and captioned by an ordinary job.
"""

import sys
from pathlib import Path

import pyarrow.dataset as ds
from PIL import Image

from captioner.jobs.cli.text import summary
from captioner.jobs.config import JobConfig
from captioner.jobs.run import run_job

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")


def main() -> int:
    """Write the photographs, run the job, show its table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    photographs = write_photographs(folder / "photographs")
    out = folder / "out"
    print(f"Six photographs are in {photographs}; captioning them into {out}\n", flush=True)
    report = run_job(JobConfig(source=str(photographs), out=str(out)))
    print(summary(report), caption_listing(out), how_to_query(out), sep="\n\n")
    return report.exit_code


def write_photographs(folder: Path) -> Path:
    """Save the sample photographs of scikit-image and scikit-learn as JPEG files."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: getattr(data, name)() for name in SAMPLES}
    samples = load_sample_images()
    pictures |= {
        Path(file).stem: image
        for file, image in zip(samples.filenames, samples.images, strict=True)
    }
    for name, pixels in pictures.items():
        path = folder / f"{name}.jpg"
        if not path.is_file():
            Image.fromarray(pixels).save(path, quality=95)
    return folder


def caption_listing(out: Path) -> str:
    """The caption table as text, the surest caption first."""
    table = ds.dataset(out / "captions").to_table(["image_uri", "caption", "confidence"])
    lines = [f"{'image':<14} {'confidence':>10}  caption"]
    for row in table.sort_by([("confidence", "descending")]).to_pylist():
        confidence = "-" if row["confidence"] is None else f"{row['confidence']:.2f}"
        lines.append(f"{Path(row['image_uri']).name:<14} {confidence:>10}  {row['caption']}")
    return "\n".join(lines)


def how_to_query(out: Path) -> str:
    """A query the reader can paste."""
    query = (
        f"SELECT caption, confidence FROM '{out / 'captions'}/*.parquet' ORDER BY 2 DESC LIMIT 3"
    )
    return (
        "The table is Parquet: ask it with DuckDB, pandas, Polars, Spark ... For example:\n\n"
        f'  {sys.executable} -c "import duckdb; duckdb.sql(\\"{query}\\").show()"'
    )


if __name__ == "__main__":
    raise SystemExit(main())
