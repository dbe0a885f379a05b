"""Errors, by what the caller can do about them.

All derive from `DltSourceException`, which dlt passes on unwrapped, so that its own `retry_load` sees whether a retry
can help. A message is one sentence that says what to do next; it never holds a key, an e-mail address or a row,
because dlt stores exception text in its trace.
"""

from __future__ import annotations

from typing import ClassVar

from dlt.common.exceptions import TerminalException, TransientException
from dlt.extract.exceptions import DltSourceException


class LeadBoxerError(DltSourceException):
    """Base of every error that this package raises."""

    exit_code: ClassVar[int] = 1


class ConfigurationInvalid(LeadBoxerError, TerminalException):
    """A setting is missing or cannot be used; change it."""

    exit_code = 4


def extra_missing(what: str, extra: str) -> ConfigurationInvalid:
    """Returns the error for something whose packages come with an extra that is not installed."""
    return ConfigurationInvalid(
        f"{what} needs an extra: pip install '.[{extra}]' in a clone; elsewhere write its path for the dot."
    )


class CredentialsRejected(LeadBoxerError, TerminalException):
    """The API answered 401: the key is missing, wrong or revoked."""

    exit_code = 5


class AccessDenied(LeadBoxerError, TerminalException):
    """The API answered 403: the key may not read this dataset."""

    exit_code = 5


class PaymentRequired(LeadBoxerError, TerminalException):
    """The API answered 402: the account's free tier is spent."""

    exit_code = 5


class NotLeadBoxer(LeadBoxerError, TerminalException):
    """Something answered that does not speak LeadBoxer's API: a proxy, a login page, another host."""

    exit_code = 6


class LimiterUnavailable(LeadBoxerError, TransientException):
    """The server in which processes share the key's budget does not answer; without it none may send anything."""


class PipelineBusy(LeadBoxerError, TransientException):
    """Another process is at work with the same pipeline; run again when it has ended."""


class StateUnreadable(LeadBoxerError, TerminalException):
    """The pipeline's state was written by a newer version or is damaged."""

    exit_code = 4


class RequestRefused(LeadBoxerError, TerminalException):
    """The API refused one request (a 4xx that is none of the above); sending it again cannot help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def may_be_for_its_limit(self) -> bool:
        """Whether it may be that only the `limit` is larger than the API takes."""
        return self.status in (400, 413, 422)

    @property
    def is_for_unknown(self) -> bool:
        """Whether the API does not know whom it was asked for, or not any more."""
        return self.status in (404, 410)


class ApiUnavailable(LeadBoxerError, TransientException):
    """The API cannot be reached or kept failing past the retries; run again later."""


class OutageSuspected(LeadBoxerError, TransientException):
    """So many requests of one run failed that nothing of it should be kept; run again later."""


class ListingUnstable(LeadBoxerError, TransientException):
    """The listing of users broke off again and again; run again later."""


class QuotaExhausted(LeadBoxerError, TransientException):
    """The API asks for a wait that no slice outlasts (a day's or a month's quota); run again after it."""

    exit_code = 3

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class Cancelled(LeadBoxerError):
    """The run ended while this request was still waiting for its turn."""
