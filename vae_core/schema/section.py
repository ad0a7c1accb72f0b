"""What every section of the config shares."""

from pydantic import BaseModel, ConfigDict, JsonValue

# Marks a field that may differ between machines without changing what is learnt: not part of a run's identity.
EXECUTION_ONLY: dict[str, JsonValue] = {"execution_only": True}


class Section(BaseModel):
    """A frozen section that refuses unknown keys and silent conversions ("off" for False, "3" for 3)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
