"""Fields of what the API is sent, as strict as its schema says: a number is no string."""

from __future__ import annotations

import re
from typing import Any

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.fields import empty

LARGEST = 2**63 - 1
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _typed(field: serializers.Field) -> bool:
    """Whether values carry types: in JSON they do, in forms everything is text."""
    return not isinstance(getattr(field.root, "initial_data", None), QueryDict)


class Text(serializers.CharField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"trim_whitespace": False} | kwargs))

    def run_validation(self, data: Any = empty) -> Any:
        if data is not empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


class Slug(Text):
    """What names a task, a dimension or a project."""

    default_error_messages = {"slug": "Letters, digits, - and _ alone."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"max_length": 50} | kwargs))

    def to_internal_value(self, data: Any) -> str:
        found = super().to_internal_value(data)
        if not re.fullmatch(r"[-a-zA-Z0-9_]*", found):
            self.fail("slug")
        return found


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        strange = isinstance(data, bool) or (_typed(self) and not isinstance(data, int | float))
        if strange or (isinstance(data, float) and not data.is_integer()):
            self.fail("invalid")
        return super().to_internal_value(int(data) if isinstance(data, float) else data)


class Number(Whole):
    """A row's number."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**({"min_value": 1, "max_value": LARGEST} | kwargs))


class Real(serializers.FloatField):
    default_error_messages = {"finite": "Give a finite number."}

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or (_typed(self) and not isinstance(data, int | float)):
            self.fail("invalid")
        try:
            value = float(super().to_internal_value(data))
        except OverflowError:
            self.fail("finite")
        if value != value or value in (float("inf"), float("-inf")):
            self.fail("finite")
        return value


class Switch(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> Any:
        if _typed(self) and not isinstance(data, bool):
            self.fail("invalid", input=data)
        return super().to_internal_value(data)


class Choice(serializers.ChoiceField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


class Moment(serializers.DateTimeField):
    """RFC 3339, with an offset."""

    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, str) or not MOMENT.fullmatch(value):
            self.fail("invalid", format="YYYY-MM-DDThh:mm:ssZ")
        return super().to_internal_value(value.upper())


class Tags(serializers.DictField):
    """Names and values that audits group by; a value may also be true."""

    default_error_messages = {"many": "Give at most 50 tags.", "name": "A name has 1–80 letters."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=Text(max_length=200), **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        found = super().to_internal_value(data)
        if len(found) > 50:
            self.fail("many")
        if not all(0 < len(name) <= 80 and "\0" not in name for name in found):
            self.fail("name")
        return found


class Order(serializers.Serializer[Any]):
    """What somebody orders; a field that it does not know is refused by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(data) - set(self.fields))):
            said = f"is not known here. There are: {', '.join(self.fields)}."
            raise serializers.ValidationError({str(name): [said] for name in unknown})
        return super().to_internal_value(data)
