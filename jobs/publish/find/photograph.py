"""A photograph to look for -> its embedding, by the captioner of the embeddings in OUT."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from captioner.errors import ImageError
from captioner.identity import identity
from captioner.image import decode_image
from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.jobs.storage.http.access import allow
from captioner.jobs.storage.uris import image_uri
from captioner.jobs.table.embeddings import embedding_captioners
from captioner.jobs.table.layout import OutFolder
from captioner.model_directory import (
    find_checkpoint,
    fingerprint,
    model_identity,
    own_weights,
)
from captioner.options import CaptionerOptions
from captioner.search_options import SearchOptions


def embed_photograph(
    photograph: str, checkpoint: str, out: OutFolder
) -> tuple[npt.NDArray[np.float32], Sequence[str]]:
    """Return the embedding [C] of a photograph, and the captioners in OUT to compare it with.

    The photograph is a path, a URL or the URI of any image of the table. Raise UsageError if it
    cannot be read, without embeddings in OUT, or if they are not by the model `checkpoint`.
    """
    directory = find_checkpoint(checkpoint)
    captioners = _by_model(directory, embedding_captioners(out), out)
    allow([photograph])
    data = _fetch(image_uri(photograph))
    from captioner.lstm.captioner import LstmCaptioner  # torch, which takes seconds to import

    captioner = LstmCaptioner.open(CaptionerOptions(str(directory)))
    try:
        pixels = decode_image(data, captioner.image_size).pixels
    except ImageError as error:
        raise UsageError(f"cannot read {photograph}: {error}") from error
    vectors = captioner.embed(captioner.encode(np.stack([pixels])))
    return vectors[0].astype(np.float32), captioners


def _by_model(directory: Path, known: Mapping[str, Mapping[str, Any]], out: OutFolder) -> list[str]:
    """Return those of the captioners in OUT that are this model, with any search options."""
    if not known:
        raise UsageError(f"{out.root} has no embeddings: repeat its run with --embeddings")
    model = fingerprint(directory)
    same = [
        captioner
        for captioner, settings in known.items()
        if captioner in _identities(directory, model, settings)
    ]
    if not same:
        raise UsageError(
            f"the embeddings in {out.root} are by {', '.join(known)}, not by the model in "
            f"{directory}: give that model as --checkpoint"
        )
    return same


def _identities(directory: Path, model: str, settings: Mapping[str, Any]) -> set[str]:
    """Return what a model with these settings is called, and was called in older tables.

    The `model` is the fingerprint of its directory.
    """
    options = SearchOptions(**settings["search"])
    former = model_identity(directory.resolve().name, model, options)
    precision, version = settings.get("precision"), settings.get("pipeline_version", 0)
    return {former, identity(former, precision, own_weights(directory, precision), version)}


def _fetch(uri: str) -> bytes:
    try:
        return fetch_image(uri, MAX_BYTES)
    except FetchError as error:
        raise UsageError(f"cannot read {uri}: {error}") from error
