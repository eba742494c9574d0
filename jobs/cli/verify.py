"""The command `captioner verify`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import add_captioner, captioner_of, whole
from captioner.jobs.cli.out import add_out
from captioner.jobs.cli.text import aligned
from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.messages import how_many, printable

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands
    from captioner.jobs.verify.findings import Finding, Sampled, Verification
    from captioner.jobs.verify.sample import Choice


def add_verify(commands: "Commands") -> None:
    """Add the command `verify`."""
    parser = commands.add_parser(
        "verify",
        help="check that a table and all that belongs to it is whole",
        description="Check every file and row of the table in OUT, its keys, the records of its "
        "runs, reviews, embeddings and index. The exit code is 1 if anything is wrong, and 75 if "
        "all that could be checked beside a run at work is right.",
    )
    add_out(parser)
    add = parser.add_argument
    sample = "fetch and caption this share (0.1%%) or number (100) of the images again, and compare"
    add("--sample", metavar="N", help=sample)
    add("--seed", metavar="N", type=whole, default=0, help="another seed, another sample (0)")
    add_captioner(parser, without=["precision"])  # that of the rows
    add("--repair", action="store_true", help="repair what can be repaired safely, then verify")
    add("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(command=_verify)


def _verify(options: dict[str, Any]) -> int:
    from captioner.jobs.verify.verify import verify_table

    choice = None if options["sample"] is None else _choice(options)
    found = verify_table(str(options["out"]), choice, repair=options["repair"])
    print(json.dumps(asdict(found), indent=2) if options["json"] else _text(found))
    if not found.is_right:
        return ExitCode.FAULT
    return ExitCode.TEMPORARY if found.at_work else ExitCode.DONE


def _choice(options: dict[str, Any]) -> "Choice":
    from captioner.jobs.verify.sample import Choice

    amount = _amount(options["sample"])
    return Choice(**amount, seed=options["seed"], captioner=captioner_of(options))


def _amount(text: str) -> Mapping[str, Any]:
    """Return the share or the count of a sample; raise UsageError for anything else."""
    try:
        if text.endswith("%") or "." in text:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if 0 < share <= 1:
                return {"share": share}
        elif int(text) > 0:
            return {"count": int(text)}
    except ValueError:
        pass
    raise UsageError(f"--sample: {text!r} is neither a share like 0.1% nor a number above 0")


def _text(found: "Verification") -> str:
    lines = [
        *found.repaired,
        *_listed(found.faults, found.counts),
        *_listed(found.harmless, found.harmless_counts),
    ]
    return "\n".join([*map(printable, lines), aligned(_summary(found))])


def _listed(findings: "Sequence[Finding]", counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each finding, and one for those of its kind that are not shown."""
    for kind, count in counts.items():
        own = [each for each in findings if each.kind == kind]
        mark = "note" if own and own[0].is_harmless else "wrong"
        yield from (f"{mark}  {each}" for each in own)
        if count > len(own):
            yield f"{mark}  and {count - len(own):,} more of this kind ({kind})"


def _summary(found: "Verification") -> Mapping[str, str]:
    wrong = ", ".join(f"{count:,} {kind}" for kind, count in found.counts.items())
    lines = {
        "verified": f"{how_many(found.rows, 'row')} in {how_many(found.files, 'file')}",
        "wrong": wrong or "nothing",
        "table": found.table,
    }
    if found.sample:
        lines["sample"] = _sample_text(found.sample)
    if found.at_work:
        lines["not verified"] = f"keys, runs, embeddings, index: {found.at_work} is at work in OUT"
    return lines


def _sample_text(sample: "Sampled") -> str:
    counts = {
        "the same": sample.same,
        "different": sample.different,
        "changed since": sample.changed,
        "could not be compared": sample.unavailable,
        "not captioned": sample.not_captioned,
    }
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    reasons = [f"{name}: {reason}" for name, reason in sample.captioners.items()]
    return printable(
        f"{how_many(sample.images, 'image')}: {', '.join(parts)}"
        + "".join(f" ({reason})" for reason in reasons)
    )
