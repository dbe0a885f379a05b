"""Bodies of the API's errors, word for word where they are published (https://developers.leadboxer.com/docs)."""

from __future__ import annotations

from typing import Any

_DOCS = "https://developers.leadboxer.com/docs"

UNAUTHORIZED = {"error": "Unauthorized", "message": "Invalid or missing API key"}


def payment_required() -> dict[str, Any]:
    """402."""
    return {
        "type": f"{_DOCS}/payment-required",
        "title": "Payment Required",
        "status": 402,
        "detail": "Your account has exceeded the free tier limits",
        "instance": "/v1/users",
        "billing_portal": "https://app.leadboxer.com/billing",
    }


def access_denied(path: str) -> dict[str, Any]:
    """403."""
    return problem(403, "access-denied", "Access Denied", "You do not have permission to access this resource", path)


def bad_request(path: str, detail: str) -> dict[str, Any]:
    """400."""
    return problem(400, "bad-request", "Bad Request", detail, path)


def not_found(path: str, detail: str) -> dict[str, Any]:
    """404."""
    return problem(404, "not-found", "Not Found", detail, path)


def internal_error(path: str) -> dict[str, Any]:
    """500."""
    return problem(500, "internal-server-error", "Internal Server Error", "An unexpected error occurred", path)


def rate_limited(path: str, wait_s: float | None, limit: int, period: str, reset_s: float | None) -> dict[str, Any]:
    """429; without `wait_s` and `reset_s` it does not tell how long to wait."""
    body = problem(429, "rate-limit-exceeded", "Rate Limit Exceeded", "API rate limit exceeded", path)
    if wait_s is None or reset_s is None:
        return body
    return {
        **body,
        "retry-after": int(wait_s),
        "rate-limit": limit,
        "rate-limit-remaining": 0,
        "rate-limit-period": period,
        "rate-limit-reset": int(reset_s),
    }


def problem(status: int, slug: str, title: str, detail: str, path: str) -> dict[str, Any]:
    """An error in the API's usual shape."""
    return {"type": f"{_DOCS}/{slug}", "title": title, "status": status, "detail": detail, "instance": path}
