"""Fields that are left out or hashed before a record becomes a row: pure. Only what leaves here is ever written."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import orjson

from leadboxer_source.errors import ConfigurationInvalid
from leadboxer_source.tables import Field

PERSONAL = (
    "email",
    "e-mail address",
    "mail",
    "firstName",
    "lastName",
    "fullName",
    "name",
    "first name",
    "last name",
    "middleName",
    "surname",
    "userName",
    "contactName",
    "PhoneNumber",
    "phone",
    "telephone",
    "telephoneNumber",
    "mobile",
    "mobilePhone",
    "ip",
    "ip_number",
    "ip address",
    "inet_aton",
    "ip_range",
    "user_agent",
    "organizationEmailAddresses",
    "organizationExecutives",
)
"""What the preset `personal` stands for, in every spelling and after each of `_VISITS`: the API's own names and the
usual ones of custom properties. A company's name, domain and telephone number are not among them."""

_VISITS = ("last_", "first_", "previous_", "original_")
"""What the API puts before a name to say of which visit it speaks."""

PRESET = "personal"
SHORTEST_KEY = 16

_NEEDED = (
    *("site", "use_id", "user_id", "session_id", "event_id", "event_key", "read_at", "properties"),
    *("lastEvent", "eventEsTimestamp", "eventUnixTimestamp", "last_event_at", "occurred_at"),
)
"""Keys and times of activity: without them rows could neither be merged nor be known as loaded."""

Record = Mapping[str, Any]
_Treatment: TypeAlias = 'Literal["exclude", "hash"] | None'


class Privacy:
    """Which fields are left out or hashed, in every table.

    A name is one that the API sends, one of a column or one of a custom property; case, spaces and punctuation do not
    matter, and it stands for the field with `last_`, `first_` and the like before it too. `personal` stands for
    `PERSONAL`. A name that is given itself beats the preset; left out beats hashed.

    Args:
        exclude: Names of fields that are left out.
        hashed: Names of fields whose values are replaced by their keyed hash.
        key: Secret of the hash.

    Raises:
        ConfigurationInvalid: Rows could not do without one of the fields, or there is no good key to hash with.
    """

    def __init__(self, exclude: Sequence[str] = (), hashed: Sequence[str] = (), key: str = "") -> None:
        named_excluded, named_hashed = _named(exclude), _named(hashed)
        self._excluded = named_excluded | (_preset(exclude) - named_hashed)
        self._hashed = (named_hashed | _preset(hashed)) - self._excluded
        self._key = key.encode()
        needed = [name for name in (*exclude, *hashed) if _squashed(name) in {_squashed(other) for other in _NEEDED}]
        if needed:
            raise ConfigurationInvalid(
                f"exclude_fields and hash_fields cannot name {', '.join(sorted(needed))}: "
                "without it rows can neither be told apart nor be known as loaded."
            )
        if self._hashed and len(key) < SHORTEST_KEY:
            raise ConfigurationInvalid(
                f"hash_fields needs a hash_key: put a secret of {SHORTEST_KEY} characters or more into secrets.toml, "
                "made for example by `openssl rand -hex 32`, and keep it: with another key the hashes are others."
            )

    def guard(self, fields: Iterable[Field]) -> Callable[[Record], Record]:
        """Returns what makes a record safe, for records with these fields.

        Raises:
            ConfigurationInvalid: A field to be hashed has a column that is no text.
        """
        return _Guard(self, fields) if self.hides else lambda record: record

    @property
    def hides(self) -> bool:
        """Whether anything is left out or hashed."""
        return bool(self._excluded or self._hashed)

    def treatment(self, *names: str) -> _Treatment:
        """Tells what is to be done with a field of these names."""
        if any(_is_among(name, self._excluded) for name in names):
            return "exclude"
        return "hash" if any(_is_among(name, self._hashed) for name in names) else None

    def digest(self, value: Any) -> str:
        """Returns the keyed hash (HMAC-SHA256, hexadecimal) of a value.

        Spaces around a text do not matter, nor does case where it holds an e-mail address; what is no text is hashed
        as JSON.
        """
        text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        text = unicodedata.normalize("NFC", text.strip())
        return hmac.new(self._key, (text.lower() if "@" in text else text).encode(), hashlib.sha256).hexdigest()


class _Guard:
    """Leaves fields of records out and hashes others, also those inside of values that are lists or objects."""

    def __init__(self, privacy: Privacy, fields: Iterable[Field]) -> None:
        self._privacy = privacy
        self._known: dict[str, _Treatment] = {}
        for field in fields:
            # the column of `lastName` begins with `last_` by chance
            column = _squashed(field.column)
            treatment = None if field.column in _NEEDED else privacy.treatment(column, *field.names)
            if treatment == "hash" and field.kind != "text":
                raise ConfigurationInvalid(
                    f"hash_fields cannot name {field.column}: its column is no text; name it in exclude_fields."
                )
            self._known.update((name.lower(), treatment) for name in field.names)
        self._unknown = lru_cache(maxsize=10_000)(privacy.treatment)

    def __call__(self, record: Record) -> Record:
        return self._safe(record, "")

    def _safe(self, record: Record, path: str) -> dict[str, Any]:
        safe: dict[str, Any] = {}
        for name, value in record.items():
            lower = name.lower()
            if path:
                treatment = self._unknown(name, path + name)
            else:
                treatment = self._known[lower] if lower in self._known else self._unknown(name)
            if treatment == "exclude":
                continue
            if treatment == "hash" and value is not None and value != "":
                safe[name] = self._privacy.digest(value)
            elif isinstance(value, (dict, list)) and (path or lower != "type"):  # {"name": "user"} is nobody's name
                safe[name] = self._inside(value, f"{path}{name}.")
            else:
                safe[name] = value
        return safe

    def _inside(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return self._safe(value, path)
        if isinstance(value, list):
            return [self._inside(item, path) for item in value]
        return value


def _squashed(name: str) -> str:
    """A name without case, spaces and punctuation; as it is where nothing else is left."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _is_among(name: str, names: frozenset[str]) -> bool:
    lower = name.lower()
    return _squashed(name) in names or any(
        _squashed(name[len(visit) :]) in names for visit in _VISITS if lower.startswith(visit)
    )


def _named(names: Sequence[str]) -> frozenset[str]:
    return frozenset(_squashed(name) for name in names if _squashed(name) != PRESET)


def _preset(names: Sequence[str]) -> frozenset[str]:
    chosen = any(_squashed(name) == PRESET for name in names)
    return frozenset(map(_squashed, PERSONAL)) if chosen else frozenset()


OPEN = Privacy()
"""Nothing is left out or hashed."""
