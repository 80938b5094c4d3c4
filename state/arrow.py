"""The values of relationships: arrows, their events, what is shown of them."""

import math
from dataclasses import dataclass
from typing import Literal

from persona_mcp.state.appraisal import Appraisal, Deltas

Bond = Literal["none", "family", "vow", "romantic", "mentor"]
Kind = Literal["turn", "update", "hearsay", "aside", "bond"]
AppraisedBy = Literal["local", "model", "quality", "given"]
"""local: by the embedder. model: by the language model. quality: from the quality of a meeting.

given: by the caller.
"""
RelationshipType = Literal[
    "stranger",
    "acquaintance",
    "friend",
    "close_friend",
    "rival",
    "enemy",
    "mentor",
    "student",
    "romantic",
    "family",
]


@dataclass(frozen=True)
class Priors:
    """Baselines that are fixed when the arrow begins.

    Attributes:
        affinity: Latent affinity at first sight, [-0.4, 0.4] by default.
        trust: Latent trust toward anybody, [-0.1, 0.1] by default.
    """

    affinity: float = 0.0
    trust: float = 0.0


@dataclass(frozen=True)
class Arrow:
    """How one party sees another at one time: latent values.

    Attributes:
        as_of: Time of the values, seconds since the epoch.
        affinity_latent: tanh of it is affinity.
        trust_latent: tanh of it is trust.
        respect_latent: tanh of it is respect.
        disclosure: Personal things told, faded, >= 0.
        contact: Contact so far, >= 0; never falls.
        interactions: Direct contacts so far, >= 0.
        minutes: Time spent together so far, >= 0.
        first_meeting: Time of the first direct contact, None before it.
        last_interaction: Time of the last direct contact, None before the first.
        last_quality: Warmth of the last direct contact, [-1, 1].
        affinity_prior: First impression, fixed at the beginning, latent.
        trust_prior: Resting trust, fixed at the beginning, latent.
        bond: Set by an event of the kind bond only.
    """

    as_of: float
    affinity_latent: float = 0.0
    trust_latent: float = 0.0
    respect_latent: float = 0.0
    disclosure: float = 0.0
    contact: float = 0.0
    interactions: int = 0
    minutes: float = 0.0
    first_meeting: float | None = None
    last_interaction: float | None = None
    last_quality: float = 0.0
    affinity_prior: float = 0.0
    trust_prior: float = 0.0
    bond: Bond = "none"

    @property
    def familiarity(self) -> float:
        """1 - exp(-contact), [0, 1)."""
        return -math.expm1(-self.contact)


@dataclass(frozen=True)
class Event:
    """Something that happened to an arrow; what is stored, and all that the fold reads.

    Attributes:
        at: Seconds since the epoch.
        seq: 1, 2, ... within the arrow; orders events of the same time.
        deltas: What it adds, as computed then; the fold never computes it again.
        kind: What sort of event it is.
        context: Kind of meeting, or empty.
        appraisal: None for a bond.
        size: M of the event, >= 0.
        weight: omega of the event, [0, 1].
        disclosure_weight: omega of its disclosure, [0, 1].
        direct: The two were in contact.
        minutes: Time spent together, >= 0; counts if direct.
        priors: Given on the event that begins the arrow.
        bond: The new bond, on events of the kind bond.
    """

    at: float
    seq: int
    deltas: Deltas
    kind: Kind = "update"
    context: str = ""
    appraisal: Appraisal | None = None
    size: float = 0.0
    weight: float = 1.0
    disclosure_weight: float = 1.0
    direct: bool = True
    minutes: float = 0.0
    priors: Priors | None = None
    bond: Bond | None = None


@dataclass(frozen=True)
class Origin:
    """Where an event comes from; kept beside it, and not read by the fold.

    Attributes:
        turn_id: The turn that it was said in, if that is stored.
        source_id: Who told it, for hearsay.
        appraiser: Who appraised it; None where nobody could say, or for a bond.
        note: Why the appraiser that was asked did not answer.
    """

    turn_id: str | None = None
    source_id: str | None = None
    appraiser: AppraisedBy | None = None
    note: str | None = None


NOWHERE = Origin()


@dataclass(frozen=True)
class Shown:
    """The public numbers of an arrow.

    Attributes:
        affinity: tanh of the latent value, (-1, 1).
        trust: Likewise.
        respect: Likewise.
        intimacy: familiarity * (1 + trust) / 2 * (1 - exp(-disclosure)), [0, 1).
        familiarity: 1 - exp(-contact), [0, 1).
        strength: .4 A + .3 T + .2 R + .1 I tanh(5 A), (-1, 1).
        compatibility_score: .5 + .5 (.3 A + .25 T + .25 R + .2 I tanh(5 A)), (0, 1).
        modifier: .3 strength + .2 min(0, last warmth), [-0.5, 0.3].
    """

    affinity: float
    trust: float
    respect: float
    intimacy: float
    familiarity: float
    strength: float
    compatibility_score: float
    modifier: float


@dataclass(frozen=True)
class Contribution:
    """What is left at some time of one event, or of the baselines, in latent units."""

    affinity: float
    trust: float
    respect: float
    disclosure: float


@dataclass(frozen=True)
class Contributions:
    """An arrow's latent values, taken apart; the parts sum to the values.

    Attributes:
        baseline: Share of the priors, the baselines and the bond.
        events: (n,), each event with what is left of it, in the order of the fold.
    """

    baseline: Contribution
    events: tuple[tuple[Event, Contribution], ...]
