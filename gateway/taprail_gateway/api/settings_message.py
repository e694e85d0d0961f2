"""The message that changes settings, made of the settings that there are."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema, create_model

from taprail_common.api.base import Why
from taprail_gateway.settle.settings import SettlementSettings


def _settings() -> dict[str, Any]:
    """Each may be given or null; whether it holds is judged with all that is set (`tuning`)."""
    schemas = SettlementSettings.model_json_schema()["properties"]
    return {
        name: (
            Annotated[Any, WithJsonSchema({"anyOf": [_shown(schema), {"type": "null"}]})],
            Field(default=None, alias=name),
        )
        for name, schema in schemas.items()
    }


def _shown(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in {"default", "title"}}


SettingsChange = create_model(
    "SettingsChange",
    __base__=Why,
    __doc__="Settings by their names; null gives one back to the configuration file.",
    **_settings(),
)
