"""The constants of the continue score, routing and exits; a section of the settings."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Points = Annotated[float, Field(ge=0, le=100)]
Factor = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=86400)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Words = Annotated[int, Field(ge=1, le=5000)]
Tokens = Annotated[int, Field(ge=0, le=32768)]
Weight = Annotated[float, Field(ge=0, le=100)]


class ContinuationParams(BaseModel):
    """Constants of the continue score.

    Source: terms and thresholds after the original Persona MCP server, otherwise chosen here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_points: Points = Field(30.0, description="Time term at the start, 0..100")
    time_urgent: Positive = Field(2.0, description="Seconds a point when urgent")
    time_working: Positive = Field(10.0, description="Seconds a point for business and the like")
    time_leisure: Positive = Field(30.0, description="Seconds a point when casual or social")
    topic_points: Points = Field(25.0, description="Topic term when both love it, 0..100")
    topic_mean_share: Factor = Field(
        0.7, description="Share of the mean preference; the rest is the lower one's, 0..1"
    )
    drift_turns: Annotated[int, Field(ge=0, le=1000)] = Field(
        2, description="Drift above this costs, turns, 0..1000"
    )
    drift_factor: Factor = Field(0.6, description="Times the pull after drift, 0..1")
    social_points: Points = Field(20.0, description="Social term of charming equals, 0..100")
    charisma_factor: Factor = Field(0.8, description="Points a unit of the lower charisma, 0..1")
    fatigue_points: Points = Field(15.0, description="Most that fatigue takes, 0..100")
    fatigue_per_point: Positive = Field(2.0, description="Fatigue that costs a point")
    history_gain: Points = Field(15.0, description="History term of the best friends, 0..100")
    history_loss: Points = Field(10.0, description="What the worst enemies lose, 0..100")
    resource_points: Points = Field(10.0, description="Resource term with plenty left, 0..100")
    plenty_seconds: Positive = Field(60.0, description="Plenty of time, seconds")
    plenty_tokens: Positive = Field(100.0, description="Plenty of tokens")
    plenty_energy: Positive = Field(30.0, description="Plenty of energy, >0")
    emotion_points: Points = Field(5.0, description="Emotion term at mood 1, 0..100")

    full_from: Points = Field(80.0, description="Lively answers from this score, 0..100")
    brief_from: Points = Field(60.0, description="Full answers from this score, 0..100")
    close_below: Points = Field(40.0, description="Below this score the talk ends, 0..100")
    temperature_lively: Temperature = Field(0.8, description="Temperature of lively answers, 0..2")
    temperature_full: Temperature = Field(0.6, description="Temperature of full answers, 0..2")
    temperature_brief: Temperature = Field(0.5, description="Temperature of brief answers, 0..2")
    words_full: Words = Field(100, description="Word cap of full answers, 1..5000")
    words_brief: Words = Field(50, description="Word cap of brief answers, 1..5000")
    words_closing: Words = Field(30, description="Word cap toward a human at a low score, 1..5000")
    tokens_per_word: Annotated[float, Field(ge=1, le=10)] = Field(
        1.3, description="Tokens a word, 1..10"
    )
    tokens_spare: Tokens = Field(16, description="Tokens on top of the word cap, 0..32768")
    tokens_needed: Tokens = Field(
        50, description="So many tokens left or fewer end the talk, 0..32768"
    )
    long_talk_answers: Annotated[int, Field(ge=1, le=10000)] = Field(
        10, description="Answers of a persona before its answers shrink, 1..10000"
    )
    shrink_tokens: Tokens = Field(20, description="Tokens fewer with each further answer, 0..32768")
    shrink_floor: Tokens = Field(40, description="Answers shrink to this at least, 0..32768")

    tired_energy: Weight = Field(30.0, description="Tired below this energy, 0..100")
    tired_fatigue: Points = Field(50.0, description="Tired above this fatigue, 0..100")
    bored_topic: Points = Field(8.0, description="Bored below this topic term, 0..100")
    bored_preference: Points = Field(30.0, description="Bored below this own preference, 0..100")

    new_share: Factor = Field(
        0.15, description="A turn with a smaller share of new words says nothing new, 0..1"
    )

    initiative_charisma: Weight = Field(2.0, description="Initiative a point of charisma, 0..100")
    initiative_energy: Positive = Field(10.0, description="Energy for a point of initiative")
    named_bonus: Weight = Field(4.0, description="Bonus for who was named last turn, 0..100")
    spoke_malus: Weight = Field(6.0, description="Malus for who spoke last, 0..100")
