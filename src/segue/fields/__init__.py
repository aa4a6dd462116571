"""Kinds of input, one file each; `KINDS` is the catalogue: a new kind is a file and a row here."""

from __future__ import annotations

from segue.fields.audio import Audio
from segue.fields.category import Category
from segue.fields.field import Encoder, EncoderState, Field
from segue.fields.image import Image
from segue.fields.many_hot import ManyHot
from segue.fields.number import Number
from segue.fields.samples import Samples
from segue.fields.text import Text
from segue.fields.timestamp import Timestamp
from segue.fields.vector import Vector
from segue.fields.video import Video

KINDS: dict[str, type[Field]] = {
    "number": Number,
    "timestamp": Timestamp,
    "audio": Audio,
    "image": Image,
    "video": Video,
    "text": Text,
    "vector": Vector,
    "many_hot": ManyHot,
    "category": Category,
    "samples": Samples,
}
"""Every kind by its name in the declaration, in the order in which inference tries them."""

__all__ = ["KINDS", "Encoder", "EncoderState", "Field"]
