"""A talk between personas, as values: what it was begun with, how it stands, who speaks next."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from persona_mcp.state import continuation, drawing
from persona_mcp.state.arrow import Shown
from persona_mcp.state.continuation import ExitReason, Party, Score, Talk
from persona_mcp.state.continuation_params import ContinuationParams
from persona_mcp.state.exchange import Conversation, Turn
from persona_mcp.state.feelings import Feelings
from persona_mcp.state.fields import WHOLE, Id, Number, Text
from persona_mcp.state.memory.importance import topics_named
from persona_mcp.state.novelty import stale_turns
from persona_mcp.state.persona import Persona
from persona_mcp.state.request import GENERAL
from persona_mcp.state.traits import rank_level
from persona_mcp.state.wishes import party_of

NARRATOR = "narrator"
"""Speaker of a turn in which something happens."""
TWO = 2
WHOLE_TALK = ""
"""In place of the conversation's id in a draw: the seed is the conversation's own."""
SAMPLING_SEEDS = 2**31
"""Seeds that every provider takes are below this."""


Speakers = Literal["round_robin", "random", "initiative", "addressed", "wants"]
"""How the next speaker is chosen: in turn; by lot; by lot weighed with initiative, who was named
and who spoke last; who was named, else in turn; who wants to most (mood, relationship, topic)."""
TurnNumber = Annotated[int, Field(ge=1, le=500), WHOLE]
Dimension = Literal["affinity", "trust", "respect", "intimacy", "strength"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


class Stated(BaseModel):
    """Part of what a talk is begun with: refuses what it does not know, coerces nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Presence(Stated):
    """When somebody comes or goes."""

    persona: Id = Field(description="Who")
    turn: TurnNumber = Field(description="Before which turn, counted from 1")


class Whisper(Stated):
    """A turn that only some hear."""

    turn: TurnNumber = Field(description="Which turn, counted from 1")
    to: Annotated[list[Id], Field(min_length=1, max_length=12)] = Field(
        description="Who hears it, beside who says it"
    )
    by: Id | None = Field(None, description="Who speaks then; left out: whose turn it is")


class Condition(Stated):
    """What is to hold after a turn; exactly one kind of it is given, and a bound where it has one.

    Of `relation` it is how `of` sees `to`, (-1, 1); of `mood` how `of` feels, -1..1.
    """

    says: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="These words were said, in any case"
    )
    by: Id | None = Field(None, description="Of says: by whom; left out: by anybody")
    relation: Dimension | None = Field(None, description="This dimension of a relationship")
    mood: bool = Field(False, description="The mood of somebody")
    of: Id | None = Field(None, description="Of relation and mood: whose")
    to: Id | None = Field(None, description="Of relation: toward whom")
    above: Annotated[Number, Field(ge=-1, le=1)] | None = Field(None, description="Is above this")
    below: Annotated[Number, Field(ge=-1, le=1)] | None = Field(None, description="Is below this")
    stagnant: Annotated[int, Field(ge=1, le=100), WHOLE] | None = Field(
        None, description="So many turns in a row said nothing new"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [self.says is not None, self.relation is not None, self.mood]
        if sum([*kinds, self.stagnant is not None]) != 1:
            raise ValueError("exactly one of says, relation, mood and stagnant")
        bounds = sum(bound is not None for bound in (self.above, self.below))
        if (self.relation is not None or self.mood) != (bounds == 1) or bounds > 1:
            raise ValueError("one of above and below with relation or mood, and with nothing else")
        if (self.relation is not None or self.mood) != (self.of is not None):
            raise ValueError("of with relation or mood, and with nothing else")
        if (self.relation is not None) != (self.to is not None):
            raise ValueError("to with relation, and with nothing else")
        if self.by is not None and self.says is None:
            raise ValueError("by with says alone")
        return self


class Intervention(Stated):
    """Something that a narrator brings in, once."""

    text: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="What happens, as those who perceive it see it"
    )
    turn: TurnNumber | None = Field(None, description="Before which turn, counted from 1")
    when: Condition | None = Field(None, description="Or: before the turn after this first held")
    to: Annotated[list[Id], Field(min_length=1, max_length=12)] | None = Field(
        None, description="Who perceives it; left out: all who are there"
    )

    @model_validator(mode="after")
    def _turn_or_when(self) -> Self:
        if (self.turn is None) == (self.when is None):
            raise ValueError("either turn or when")
        return self


class Plan(BaseModel):
    """What a talk between personas is begun with, kept in its row.

    Attributes:
        token_budget: Tokens for all that is said, 51..32768.
        max_duration: Seconds of talk, 30..86400.
        max_turns: 1..500.
        seed: Of all that is drawn by lot.
        first_speaker: Who begins.
        witnesses: Ids of personas that overhear it and say nothing.
        speakers: How the next speaker is chosen.
        starts_at: Where its time is simulated: when it begins, in seconds since the epoch, UTC. It
            passes by what talking costs alone. None for the wall clock.
        bow_out: A persona that has had enough ends it; false: only budgets and conditions do.
        setting: Where and when it takes place, in words; everybody there knows it.
        stagnation: It ends after so many turns that say nothing new; 0 for never.
        joins: Who comes later.
        leaves: Who goes before the end.
        whispers: Turns that only some hear.
        interventions: What a narrator brings in.
        ends_when: It ends when this holds.
    """

    model_config = ConfigDict(frozen=True)

    token_budget: int
    max_duration: float
    max_turns: int
    seed: int
    first_speaker: str
    witnesses: tuple[str, ...] = ()
    speakers: Speakers = "round_robin"
    starts_at: float | None = None
    bow_out: bool = True
    setting: str = ""
    stagnation: int = 0
    joins: tuple[Presence, ...] = ()
    leaves: tuple[Presence, ...] = ()
    whispers: tuple[Whisper, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    ends_when: Condition | None = None

    def is_there(self, persona_id: str, turn: int) -> bool:
        """Tell whether one who belongs to the talk is there at a turn, counted from 1."""
        come = all(turn >= one.turn for one in self.joins if one.persona == persona_id)
        return come and all(turn < one.turn for one in self.leaves if one.persona == persona_id)

    def whisper(self, turn: int) -> Whisper | None:
        """Return whether a turn, counted from 1, is one that only some hear."""
        return next((one for one in self.whispers if one.turn == turn), None)

    @property
    def stale_turns(self) -> int:
        """Return the most turns without anything new that it waits for; 0 if it waits for none."""
        awaited = [one.when for one in self.interventions] + [self.ends_when]
        return max(self.stagnation, *(one.stagnant or 0 for one in awaited if one), 0)

    def as_json(self) -> dict[str, Any]:
        """Write it as it is kept: what is as by default is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)


PLANNED = frozenset(Plan.model_fields)


def plan_of(kept: Mapping[str, Any]) -> Plan:
    """Read a plan; what was added at the end of the talk is not part of it."""
    return Plan(**{name: value for name, value in kept.items() if name in PLANNED})


@dataclass(frozen=True)
class Member:
    """A persona that is there, and how it feels now."""

    persona: Persona
    feelings: Feelings


@dataclass(frozen=True)
class Standing:
    """How a talk between personas stands; read in one transaction.

    Attributes:
        now: When, in seconds since the epoch, UTC.
        conversation: Which.
        plan: What it was begun with.
        members: Those who talk, in the conversation's order.
        last_speaker: Who spoke last; None before the first turn.
        duration: Seconds of talk so far.
        tokens_used: So far.
        window: Its last turns, oldest first.
        past: The turns by which it is judged whether anything new is said, oldest first: the window
            and, where the plan waits for more stale turns than it holds, those before it.
        views: How each sees each other now, by (who, whom); those who have met.
        said: How many turns were spoken; a narrator's do not count.
        narrated: What a narrator has brought in already, and how often.
        heard_by: Who overhears it, as personas.
    """

    now: float
    conversation: Conversation
    plan: Plan
    members: tuple[Member, ...]
    last_speaker: str | None
    duration: float
    tokens_used: int
    window: tuple[Turn, ...]
    views: Mapping[tuple[str, str], Shown]
    said: int = 0
    past: tuple[Turn, ...] = ()
    narrated: Mapping[str, int] = field(default_factory=dict)
    heard_by: tuple[Persona, ...] = ()

    @cached_property
    def present(self) -> tuple[Member, ...]:
        """Return those who talk and are there at the next turn."""
        return tuple(m for m in self.members if self.plan.is_there(m.persona.id, self.said + 1))

    @property
    def audience(self) -> tuple[Persona, ...]:
        """Return everybody who is there at the next turn, those who only overhear it last."""
        turn = self.said + 1
        aside = (one for one in self.heard_by if self.plan.is_there(one.id, turn))
        return (*(member.persona for member in self.present), *aside)

    def audience_of(self, ids: Collection[str]) -> tuple[Persona, ...]:
        """Return those of all who are there at some time that are among some ids."""
        everybody = (*(member.persona for member in self.members), *self.heard_by)
        return tuple(one for one in everybody if one.id in ids)

    @property
    def names(self) -> dict[str, str]:
        """Return what everybody is called who is there at some time, by their ids."""
        everybody = [*(member.persona for member in self.members), *self.heard_by]
        return {one.id: one.name for one in everybody}

    @property
    def is_group(self) -> bool:
        """Tell whether more than two are ever there, so that a turn says whose it is."""
        return len(self.members) + len(self.heard_by) > TWO

    @property
    def tokens_left(self) -> int:
        """Return what is left of the budget, >= 0."""
        return max(0, self.plan.token_budget - self.tokens_used)

    def member(self, persona_id: str) -> Member:
        """Return one of those who talk."""
        return next(member for member in self.members if member.persona.id == persona_id)

    def partner(self, speaker_id: str) -> Member:
        """Return whom one speaks to: who spoke last, else the first other one who is there."""
        everybody = self.present if len(self.present) > 1 else self.members
        others = [member for member in everybody if member.persona.id != speaker_id]
        last = (member for member in others if member.persona.id == self.last_speaker)
        return next(last, others[0])

    def strength(self, speaker_id: str) -> float | None:
        """Return how strongly a speaker is tied to whom it speaks to; None if they never met."""
        view = self.views.get((speaker_id, self.partner(speaker_id).persona.id))
        return view.strength if view else None

    @cached_property
    def talk(self) -> Talk:
        """Return how far it has gone."""
        return Talk(
            duration=self.duration,
            turns=self.said,
            tokens_left=self.tokens_left,
            drift=drift(self.window, self.members, self.conversation.topic),
            max_duration=self.plan.max_duration,
            max_turns=self.plan.max_turns,
        )


@dataclass(frozen=True)
class Outlook:
    """Whether a talk goes on, as the one sees it who would speak.

    Attributes:
        score: How much that one wants to go on.
        ends: Why the talk ends; None if it goes on.
    """

    score: Score
    ends: ExitReason | None


def outlook(standing: Standing, speaker_id: str, params: ContinuationParams) -> Outlook:
    """Tell whether a talk goes on with a speaker's turn.

    Where nobody may bow out, budgets end it alone.
    """
    party, partner = sides(standing, speaker_id)
    talk = standing.talk
    score = continuation.score(party, partner, talk, standing.strength(speaker_id), params)
    if standing.plan.stagnation and stale(standing, params) >= standing.plan.stagnation:
        return Outlook(score, "stagnation")
    if not standing.plan.bow_out:
        return Outlook(score, continuation.spent(talk, params))
    if continuation.should_continue(score.total, party, partner, talk, params):
        return Outlook(score, None)
    return Outlook(score, continuation.exit_reason(party, partner, talk, score, params))


def stale(standing: Standing, params: ContinuationParams) -> int:
    """Count the turns at the end of a talk that said nothing new."""
    said = [turn.content for turn in standing.past if turn.speaker_id != NARRATOR]
    return stale_turns(said, params.new_share)


def sides(standing: Standing, speaker_id: str) -> tuple[Party, Party]:
    """Return what a continue score needs of a speaker, and of whom it speaks to."""
    topic = standing.conversation.topic
    own, other = standing.member(speaker_id), standing.partner(speaker_id)
    return party_of(own.persona, own.feelings, topic), party_of(
        other.persona, other.feelings, topic
    )


def first_by_initiative(members: Sequence[Member], seed: int, params: ContinuationParams) -> str:
    """Draw who begins: by charisma, rank, energy and a die for each; ties by id."""
    rolled = {one.persona.id: initiative_of(one, seed, 0, params) for one in members}
    return drawing.first_speaker(rolled)


def initiative_of(member: Member, seed: int, turn: int, params: ContinuationParams) -> float:
    """Return the right of one to speak first: charisma, rank, energy, and a die rolled a turn."""
    return drawing.initiative(
        member.persona.spec.charisma,
        rank_level(member.persona.spec.social_rank),
        member.feelings.interaction.energy,
        drawing.d20(seed, f"initiative {member.persona.id}", WHOLE_TALK, turn),
        params,
    )


def sampling_seed(plan: Plan, turn: int) -> int:
    """Return the seed that a turn's words are drawn with, [0, 2^31)."""
    return int(SAMPLING_SEEDS * drawing.draw(plan.seed, "sampling", WHOLE_TALK, turn))


def drift(turns: Sequence[Turn], members: Sequence[Member], topic: str) -> int:
    """Count how often a talk has left its topic, by the topics that its turns name.

    A talk on nothing in particular has none to leave; a turn that names no topic stays on it.

    Args:
        turns: Oldest first.
        members: Whose topics are known.
        topic: Of the talk.
    """
    if topic == GENERAL:
        return 0
    known = {name for member in members for name in member.persona.spec.topic_preferences}
    said = [turn.content for turn in turns if turn.speaker_id != NARRATOR]
    named = topics_named(said, sorted(known | {topic}))
    best = (topic if topic in found else min(found, default=topic) for found in named)
    return continuation.drift_of(list(best), topic)
