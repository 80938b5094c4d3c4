"""The constants of the relationship laws; a section of the settings, kept with every snapshot."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Signed = Annotated[float, Field(ge=-1, le=1)]
Latent = Annotated[float, Field(ge=0, le=5)]
Positive = Annotated[float, Field(gt=0, le=10000)]
Days = Annotated[float, Field(gt=0, le=36500)]
Count = Annotated[int, Field(ge=0, le=10000)]
Lift = Annotated[float, Field(ge=0, lt=1)]


class ContextRow(BaseModel):
    """How a quality q in [-1, 1] of a meeting of one kind becomes an appraisal.

    warmth, reliability and competence are slope * q + offset limited to [-1, 1]; disclosure is
    disclosure * max(0, q). Slopes are not negative, so every axis is monotone in q.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    warmth: Share = Field(1.0, description="Slope of warmth, 0..1")
    warmth_offset: Signed = Field(0.0, description="Warmth at quality 0, -1..1")
    reliability: Share = Field(0.6, description="Slope of reliability, 0..1")
    reliability_offset: Signed = Field(0.0, description="Reliability at quality 0, -1..1")
    competence: Share = Field(0.5, description="Slope of competence, 0..1")
    competence_offset: Signed = Field(0.0, description="Competence at quality 0, -1..1")
    disclosure: Share = Field(0.3, description="Disclosure at quality 1, 0..1")
    turning_point: bool = Field(False, description="Such a meeting weighs more than others")


class RelationshipParams(BaseModel):
    """Constants of appraisal, update, decay and display. Source: chosen here, to be calibrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    params_version: int = Field(1, ge=1, description="Stored with each event; counts the tables")

    appraiser: Literal["local", "model"] = Field(
        "local", description="local: by the embedder and words; model: asked, local where it fails"
    )
    appraiser_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        20.0, description="Limit of the model's appraisal of one utterance, in seconds"
    )
    dead_zone: Share = Field(
        0.10, lt=1, description="Appraisals up to this size change nothing, 0..<1"
    )
    turn_size: Latent = Field(0.11, description="Size of one turn, 0..5")
    update_size_min: Latent = Field(0.2, description="Size of a meeting of 0 minutes, 0..5")
    update_size_span: Latent = Field(0.8, description="What a long meeting adds to it, 0..5")
    update_half_minutes: Positive = Field(
        15.0, description="Minutes until half of the span is reached"
    )
    turning_point_factor: Annotated[float, Field(ge=1, le=10)] = Field(
        1.5, description="Times the size at a betrayal, repair, vow or rescue, 1..10"
    )
    contexts: dict[str, ContextRow] = Field(
        default_factory=dict,
        description="Kinds of meetings, beside the built-in ones or in place of them",
    )

    hearsay_weight: Share = Field(
        0.6, description="Weight of what a fully trusted source tells, 0..1"
    )
    returned_weight: Share = Field(
        0.35, description="Weight of one's own act on how one sees its receiver, 0..1"
    )
    returned_disclosure: Share = Field(
        0.7, description="Weight of one's own disclosure on one's own intimacy, 0..1"
    )
    aside_weight: Share = Field(0.3, description="Weight of an act that was only witnessed, 0..1")

    affinity_gain: Latent = Field(0.25, description="Latent affinity a unit of good warmth, 0..5")
    affinity_loss: Latent = Field(0.35, description="Latent affinity a unit of bad warmth, 0..5")
    trust_gain: Latent = Field(0.25, description="Latent trust a unit of good reliability, 0..5")
    trust_loss: Latent = Field(0.50, description="Latent trust a unit of bad reliability, 0..5")
    respect_gain: Latent = Field(0.20, description="Latent respect a unit of competence, 0..5")
    respect_loss: Latent = Field(0.25, description="Latent respect a unit of failure, 0..5")
    disclosure_gain: Latent = Field(0.50, description="Disclosure a unit told in person, 0..5")
    agreeableness_gain: Share = Field(
        0.2, description="Share of every gain that needs an agreeable persona, 0..1"
    )
    neuroticism_loss: Share = Field(
        0.25, description="What full neuroticism adds to every loss, as a share, 0..1"
    )
    contact_per_event: Share = Field(0.015, description="Contact of one direct event, 0..1")
    contact_minutes: Positive = Field(600.0, description="Minutes together for contact 1")

    affinity_days_above: Days = Field(30.0, description="Half-life above the baseline, days")
    affinity_days_below: Days = Field(45.0, description="Half-life below the baseline, days")
    trust_days_above: Days = Field(60.0, description="Half-life above the baseline, days")
    trust_days_below: Days = Field(120.0, description="Half-life below the baseline, days")
    respect_days_above: Days = Field(90.0, description="Half-life above the baseline, days")
    respect_days_below: Days = Field(90.0, description="Half-life below the baseline, days")
    disclosure_days: Days = Field(120.0, description="Half-life of disclosure, days")
    familiarity_slowing: Annotated[float, Field(ge=0, le=100)] = Field(
        3.0, description="How many half-lives full familiarity adds, 0..100"
    )

    affinity_prior: Latent = Field(
        0.4, description="Latent affinity at first sight of a perfect match, 0..5"
    )
    affinity_prior_contacts: Positive = Field(
        50.0, description="Direct contacts until the first impression counts half"
    )
    trust_prior: Latent = Field(
        0.2, description="Latent trust a unit of agreeableness above 0.5, 0..5"
    )
    family_affinity: Lift = Field(0.5, description="Least resting affinity in a family, 0..<1")
    family_trust: Lift = Field(0.3, description="Least resting trust in a family, 0..<1")
    vow_trust: Lift = Field(0.4, description="Least resting trust under a vow, 0..<1")
    romantic_affinity: Lift = Field(0.4, description="Least resting affinity of lovers, 0..<1")

    strength_affinity: Share = Field(0.4, description="Share of affinity in strength, 0..1")
    strength_trust: Share = Field(0.3, description="Share of trust in strength, 0..1")
    strength_respect: Share = Field(0.2, description="Share of respect in strength, 0..1")
    strength_intimacy: Share = Field(0.1, description="Share of intimacy in strength, 0..1")
    compatibility_affinity: Share = Field(0.3, description="Share in compatibility, 0..1")
    compatibility_trust: Share = Field(0.25, description="Share in compatibility, 0..1")
    compatibility_respect: Share = Field(0.25, description="Share in compatibility, 0..1")
    compatibility_intimacy: Share = Field(0.2, description="Share in compatibility, 0..1")
    intimacy_steepness: Positive = Field(
        5.0, description="How sharply intimacy turns with the sign of affinity, > 0"
    )
    modifier_strength: Share = Field(0.3, description="Share of strength in the modifier, 0..1")
    modifier_last: Share = Field(
        0.2, description="Share of the last bad warmth in the modifier, 0..1"
    )

    stranger_contacts: Count = Field(3, description="Strangers met less often, 0..10000")
    stranger_strength: Share = Field(0.3, description="Strangers feel less either way, 0..1")
    stranger_familiarity: Share = Field(0.15, description="Strangers know less, 0..1")
    enemy_below: Signed = Field(-0.7, description="Enemies have less strength, -1..1")
    rival_below: Signed = Field(-0.3, description="Rivals have less strength, -1..1")
    acquaintance_from: Signed = Field(0.2, description="Acquaintances at any familiarity, -1..1")
    friend_from: Signed = Field(0.5, description="Least strength of friends, -1..1")
    close_friend_from: Signed = Field(0.8, description="Least strength of close friends, -1..1")
    mentor_respect: Signed = Field(0.7, description="Least respect for a mentor, -1..1")
    mentor_gap: Annotated[float, Field(gt=0, le=2)] = Field(
        0.25, description="Respect for a mentor above the mentor's for the student, >0..2"
    )
    mentor_contacts: Count = Field(10, description="A mentor was met more often, 0..10000")

    @model_validator(mode="after")
    def _shares_keep_the_ranges(self) -> Self:
        strength = (
            self.strength_affinity
            + self.strength_trust
            + self.strength_respect
            + self.strength_intimacy
        )
        compatibility = (
            self.compatibility_affinity
            + self.compatibility_trust
            + self.compatibility_respect
            + self.compatibility_intimacy
        )
        if max(strength, compatibility) > 1 + 1e-9:
            raise ValueError("the shares of strength, and those of compatibility, sum to 1 at most")
        return self
