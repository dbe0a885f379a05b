"""Options that several commands share: where to load to, and which LeadBoxer to read."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import click
import dlt
from dlt.common.destination import Destination
from dlt.common.schema import Schema
from dlt.destinations.sql_client import WithSqlClient

from leadboxer_source.destination import loaded_state
from leadboxer_source.errors import ConfigurationInvalid

DATASET = "leadboxer_data"
"""Where it loads to if nothing else is said: DuckDB cannot tell a dataset from a file of the same name."""

_SERVER = ("host", "server_hostname", "port", "project_id", "catalog", "database")
"""What dlt's credentials call that which tells one database from another."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _destinations(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    return [name for name in dlt.destinations.__all__ if name.startswith(incomplete) and name != "destination"]


_PLACE = (
    click.option(
        "--destination",
        default="duckdb",
        show_default=True,
        shell_complete=_destinations,
        help="Any dlt destination.",
    ),
    click.option("--db", type=click.Path(), help="File of a DuckDB destination.  [default: leadboxer.duckdb]"),
    click.option("--dataset", default=DATASET, show_default=True, help="Dataset (schema) in the destination."),
    click.option("--pipeline", help="Name of the pipeline.  [default: made of where it loads to]"),
)
_ACCOUNT = (
    click.option("--site", help="LeadBoxer dataset id.  [default: from dlt's configuration]"),
    click.option("--base-url", help="The API's address."),
    click.option("--rate-limit", help="Requests that each endpoint allows.  [default: 10/minute]"),
)
ACCOUNT = ("site", "base_url", "rate_limit")


class Place(NamedTuple):
    """Where a command loads to, or looks."""

    destination: str
    db: str | None
    dataset: str
    name: str | None

    @property
    def file(self) -> Path | None:
        """The file of a DuckDB destination."""
        return Path(self.db or "leadboxer.duckdb").absolute() if self.destination == "duckdb" else None

    def __str__(self) -> str:
        """The place as a person says it."""
        return f"{self.db or (self.file.name if self.file else self.destination)}, dataset {self.dataset}"

    @property
    def is_missing(self) -> bool:
        """Whether it is a DuckDB file that is not there: whoever opened it would make it."""
        return self.file is not None and not self.file.exists()

    def pipeline(self, *, read_only: bool = False) -> dlt.Pipeline:
        """Returns the pipeline of this place; each place has its own, as what is covered there differs.

        Args:
            read_only: Open a DuckDB file as it can be while other programs read it too.

        Raises:
            ConfigurationInvalid: The place cannot be.
        """
        path = self.file
        # dlt makes a folder of it
        if self.name and not re.fullmatch(r"\w[\w-]*", self.name):
            raise ConfigurationInvalid(f"{self.name} is no name for a pipeline: use letters, digits, _ and -.")
        if self.db is not None and path is None:
            raise ConfigurationInvalid("--db names a DuckDB file; for other destinations configure dlt's credentials.")
        if path is not None and path.stem == self.dataset:
            raise ConfigurationInvalid(
                f"DuckDB cannot tell the dataset {self.dataset} from the file {path.name}: name one of them otherwise."
            )
        if not self.dataset.strip():
            raise ConfigurationInvalid("--dataset is empty: name one, or leave it out.")
        if self._kept_name != self.dataset:
            raise ConfigurationInvalid(
                f"The dataset {self.dataset} would be called {self._kept_name} there: "
                f"write --dataset {shlex.quote(self._kept_name)}."
            )
        # a file has several paths, by way of `..` and of links
        where = os.path.realpath(path) if path else _address(self.destination)
        identity = f"{self.destination}|{where}|{self.dataset}"
        digest = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
        target: Any = self.destination
        if path:
            target = dlt.destinations.duckdb({"database": str(path), "read_only": read_only})
        return dlt.pipeline(self.name or f"leadboxer_{digest}", destination=target, dataset_name=self.dataset)

    def state(self, pipeline: dlt.Pipeline, *, looks_there: bool = True) -> Mapping[str, Any]:
        """Returns the state of the place's pipeline: what the destination keeps, else what is on this machine.

        Args:
            pipeline: Of this place.
            looks_there: Whether the destination may be opened.

        Raises:
            Exception: Whatever the destination raises where it cannot be read and nothing is known here: it may well
                hold something.
        """
        if self.is_missing:
            return {}
        known: Mapping[str, Any] = pipeline.state
        if looks_there:
            try:
                return loaded_state(pipeline)
            except Exception:
                if not known.get("sources"):
                    raise
        return known

    @property
    def _kept_name(self) -> str:
        """What dlt calls the dataset; each time it does it by another name than the given one, it warns."""
        for section in (f"destination.{self.destination}", "destination"):
            if dlt.config.get(f"{section}.enable_dataset_name_normalization", bool) is False:
                return self.dataset
        return Schema("leadboxer").naming.normalize_table_identifier(self.dataset)

    def command(self, name: str) -> str:
        """Returns how to call a command for this place."""
        options = (
            ("--destination", self.destination, "duckdb"),
            ("--db", self.db, None),
            ("--dataset", self.dataset, DATASET),
            ("--pipeline", self.name, None),
        )
        given = [word for option, value, default in options if value and value != default for word in (option, value)]
        return shlex.join(["leadboxer", name, *given])

    @contextmanager
    def leaving_no_empty_file(self) -> Iterator[None]:
        """Takes away the DuckDB file that was made meanwhile if it came to hold nothing."""
        was_missing = self.is_missing
        try:
            yield
        finally:
            if self.file is not None and was_missing and not self.is_missing and not self._has_dataset():
                for file in (self.file, self.file.with_name(f"{self.file.name}.wal")):
                    file.unlink(missing_ok=True)

    def _has_dataset(self) -> bool:
        with self.pipeline().destination_client() as client:
            return not isinstance(client, WithSqlClient) or client.sql_client.has_dataset()

    def loaded_pipeline(self, *, read_only: bool = False) -> dlt.Pipeline:
        """Returns the pipeline of this place to read what it loaded.

        Args:
            read_only: See `pipeline`.

        Raises:
            ConfigurationInvalid: There is no such DuckDB file.
        """
        pipeline = self.pipeline(read_only=read_only)
        if self.is_missing:
            raise ConfigurationInvalid(f"There is no {self.file}: run `leadboxer sync` first, or name it with --db.")
        if not pipeline.schema_names:
            pipeline.sync_destination()
        return pipeline


def _address(destination: str) -> str:
    """Which bucket or server dlt's configuration names for a destination; no password, as those are changed."""
    with suppress(Exception):  # whoever opens it will tell what is wrong
        factory: Any = Destination.from_reference(destination)
        config = factory.configuration(factory.spec(), accept_partial=True)
        if url := getattr(config, "bucket_url", ""):
            scheme, server, path = urlsplit(url)[:3]
            path = os.path.realpath(path) if scheme == "file" else path.rstrip("/")
            return f"{scheme}://{re.sub(':[^@]*@', '@', server)}{path}"
        parts = (getattr(config.credentials, name, None) for name in _SERVER)
        return "/".join(str(part) for part in parts if isinstance(part, (str, int)))
    return ""


def with_place(command: Decorated) -> Decorated:
    """Adds the options that say where to load to; `taken_place` reads them."""
    return _with(_PLACE, command)


def with_account(command: Decorated) -> Decorated:
    """Adds the options that say which LeadBoxer to read; `taken_account` reads them."""
    return _with(_ACCOUNT, command)


def taken_place(options: dict[str, Any]) -> Place:
    """Takes the place out of a command's options."""
    return Place(options.pop("destination"), options.pop("db"), options.pop("dataset"), options.pop("pipeline"))


def taken_account(options: dict[str, Any]) -> dict[str, Any]:
    """Takes those arguments of `leadboxer_source` out of a command's options that were given."""
    account = {name: options.pop(name) for name in ACCOUNT}
    return {name: value for name, value in account.items() if value is not None}


def names(text: str | None) -> list[str] | None:
    """Reads names separated by commas."""
    return [name.strip() for name in text.split(",")] if text else None


def _with(options: tuple[Callable[[Any], Any], ...], command: Decorated) -> Decorated:
    for option in reversed(options):
        command = option(command)
    return command
