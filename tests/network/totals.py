"""What a total says that crossed the wire."""

import numpy as np

from privacy.lanes import LaneVector
from privacy.rng import Words
from protocols.wire import fedtwin_pb2 as pb


def numbers_of(*pieces: pb.SumResult) -> Words:
    """Return the numbers of a total, of which these are all pieces."""
    words = np.frombuffer(b"".join(piece.total for piece in pieces), dtype="<u8").astype(np.uint64)
    return LaneVector(words, pieces[0].length, pieces[0].lanes).signed()
