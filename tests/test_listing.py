"""Windows of days, drained page by page: nobody is skipped, and the end of a list is told from its breaking off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

import pytest

from leadboxer_source import errors, settings
from leadboxer_source.client import Answer, Days, Page
from leadboxer_source.coverage import Stretch
from leadboxer_source.listing import Listed, Lister, Listing, days_of, next_days, window_of

DAY = settings.DAY_MS
WINDOW = Stretch(100 * DAY, 101 * DAY)
END: list[str] = []


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        self.now_s += seconds


class Pages:
    """Answers one page after the other, as scripted: ids, an error, or a whole page."""

    def __init__(self, *script: Any, total: int | None = None, takes_s: float = 0.0) -> None:
        self.asked: list[tuple[Days, str | None, int]] = []
        self.clock = Clock()
        self._script, self._total, self._takes_s = list(script), total, takes_s

    def page(self, days: Days, token: str | None, limit: int) -> Page:
        self.asked.append((days, token, limit))
        self.clock.now_s += self._takes_s
        said = self._script.pop(0)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Page):
            return said
        return Page(users(said), f"token {len(self.asked)}", self._total, 7_000 + len(self.asked))

    def sessions(self, user_id: str, *, once: bool = False) -> Answer:
        raise AssertionError

    def events(self, session_id: str, *, once: bool = False) -> Answer:
        raise AssertionError

    @property
    def tokens(self) -> list[str | None]:
        return [token for _, token, _ in self.asked]


def users(names: Iterable[Any]) -> list[dict[str, Any]]:
    """Users named `a`, `b`, ..., each last seen a second before the other; `a@5` was last seen five ms into the day."""
    made = []
    for name in names:
        user_id, _, at = name.partition("@")
        made.append({"use_id": user_id, "lastEvent": WINDOW.lo + (int(at) if at else 1_000_000 - 1_000 * ord(user_id))})
    return made


def drain(api: Pages, window: Stretch = WINDOW) -> Listing:
    return Lister(api, api.clock).drain(window)


def names(listing: Listing) -> list[str]:
    return [user.user_id for user in listing.users()]


class TestWindows:
    def test_a_window_is_the_newest_whole_days_of_a_hole_and_its_partial_ends(self) -> None:
        hole = Stretch(10 * DAY + 5, 20 * DAY + 7)
        assert window_of(hole, 1) == Stretch(20 * DAY, 20 * DAY + 7)
        assert window_of(hole, 3) == Stretch(18 * DAY, 20 * DAY + 7)
        assert window_of(hole, 11) == hole
        assert window_of(hole, 99) == hole

    def test_a_hole_that_ends_at_midnight_does_not_reach_into_the_next_day(self) -> None:
        assert window_of(Stretch(0, 20 * DAY), 1) == Stretch(19 * DAY, 20 * DAY)
        assert window_of(Stretch(0, 20 * DAY + 1), 1) == Stretch(20 * DAY, 20 * DAY + 1)

    def test_days_are_asked_for_with_one_to_spare_before_and_two_after(self) -> None:
        assert days_of(Stretch(0, DAY)) == Days(date(1969, 12, 31), date(1970, 1, 3))
        assert days_of(Stretch(2 * DAY - 1, 2 * DAY + 1)) == Days(date(1970, 1, 1), date(1970, 1, 5))

    @pytest.mark.parametrize(
        ("days", "listed", "following"),
        [
            (1, 0, 32),
            (2, 0, 64),
            (1, 1, 4),
            (3, 10, 12),
            (1, 10_000, 3),
            (4, 10_000, 6),
            (4, 30_000, 2),
            (1, 99_999, 1),
        ],
    )
    def test_the_next_window_is_sized_by_what_the_last_one_held(self, days: int, listed: int, following: int) -> None:
        assert next_days(days, listed) == following
        assert isinstance(next_days(days, listed), int)


class TestListing:
    def listing(self, *pages: list[tuple[str, int | None]]) -> Listing:
        made = Listing(WINDOW)
        for page in pages:
            made.add(
                [
                    Listed(name, last, {"use_id": name, **({"lastEvent": last} if last is not None else {})})
                    for name, last in page
                ]
            )
        return made

    def test_everybody_comes_once_newest_first_and_as_seen_last(self) -> None:
        listing = self.listing([("a", 9), ("b", 8)], [("b", 8), ("c", 7)], [("c", 12)])
        assert [(user.user_id, user.last_event_ms) for user in listing.users()] == [("c", 12), ("a", 9), ("b", 8)]
        assert len(listing) == 3
        assert not listing.in_order

    def test_an_older_sight_of_somebody_changes_nothing(self) -> None:
        listing = self.listing([("a", 9)], [("a", 8)], [("a", None)])
        assert [tuple(user)[:2] for user in listing.users()] == [("a", 9)]
        assert listing.in_order

    def test_those_of_unknown_activity_come_first_until_it_is_known(self) -> None:
        listing = self.listing([("a", 9)], [("b", None), ("c", None)], [("c", 5)])
        assert [tuple(user)[:2] for user in listing.users()] == [("b", None), ("a", 9), ("c", 5)]
        assert not listing.in_order

    def test_equal_times_are_in_order(self) -> None:
        listing = self.listing([("a", 9), ("b", 9)])
        assert listing.in_order
        assert names(listing) == ["a", "b"]

    def test_activity_at_the_epoch_is_known_activity(self) -> None:
        assert names(self.listing([("a", 0)], [("b", 1), ("c", None)])) == ["c", "b", "a"]

    def test_a_record_comes_back_as_it_was_sent(self) -> None:
        listing = Listing(WINDOW)
        listing.add([Listed("a", 5, {"use_id": "a", "lastEvent": 5, "größe": [1, {"x": None}]})])
        assert next(listing.users()).record == {"use_id": "a", "lastEvent": 5, "größe": [1, {"x": None}]}
        assert (listing.atomic, listing.settled, listing.started_ms) == (False, True, None)


class TestDraining:
    def test_one_page_and_an_empty_one_are_read_twice_and_then_known_to_be_of_one_moment(self) -> None:
        api = Pages("ab", END, "ab", END)
        listing = drain(api)
        assert names(listing) == ["a", "b"]
        assert listing.atomic
        assert listing.settled

    def test_a_single_page_without_a_token_takes_one_request(self) -> None:
        api = Pages(Page(users("ab"), None, None, 5))
        listing = drain(api)
        assert (names(listing), listing.atomic, listing.started_ms) == (["a", "b"], True, 5)
        assert api.asked == [(days_of(WINDOW), None, settings.PAGE_LIMIT)]

    def test_pages_are_followed_by_their_tokens_until_two_passes_agree(self) -> None:
        api = Pages("ab", "cd", END, "ab", "cd", END)
        listing = drain(api)
        assert names(listing) == ["a", "b", "c", "d"]
        assert api.tokens == [None, "token 1", "token 2", None, "token 4", "token 5"]
        assert listing.atomic
        assert listing.settled
        assert listing.started_ms == 7_001

    def test_somebody_found_only_by_a_later_pass_makes_another_one_necessary(self) -> None:
        api = Pages("ab", "d", END, "ab", "cd", END, "ab", "cd", END)
        listing = drain(api)
        assert sorted(names(listing)) == ["a", "b", "c", "d"]
        assert len(api.asked) == 6, "the first pass missed nobody who is in the second: c joined, which harms nobody"

    def test_somebody_who_left_makes_another_pass_necessary(self) -> None:
        api = Pages("ab", "cd", END, "bc", "d", END, "bc", "d", END)
        listing = drain(api)
        assert len(api.asked) == 9
        assert sorted(names(listing)) == ["a", "b", "c", "d"]
        assert listing.atomic

    def test_a_pass_in_which_a_page_repeated_somebody_proves_nothing_about_the_moment(self) -> None:
        api = Pages("ab", "bc", END, "ab", "bc", END)
        listing = drain(api)
        assert names(listing) == ["a", "b", "c"]
        assert not listing.atomic
        assert listing.settled

    def test_users_who_never_stay_leave_the_window_unsettled(self) -> None:
        passes = [[[chr(97 + number)], [chr(98 + number)], END] for number in range(settings.MAX_PASSES + 1)]
        api = Pages(*(page for one in passes for page in one))
        listing = drain(api)
        assert listing.settled is False
        assert not listing.atomic
        assert len(api.asked) == 3 * (settings.MAX_PASSES + 1)

    def test_a_very_long_window_settles_for_two_passes_that_bring_nobody_new(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(settings, "LARGE_WINDOW_PAGES", 3)
        script = ["ab", "cd", END, "ab", "d", END, "bc", "d", END, "ab", "cd", END]
        api = Pages(*script)
        listing = drain(api)
        assert listing.settled
        assert not listing.atomic
        assert len(api.asked) == 9
        assert sorted(names(listing)) == ["a", "b", "c", "d"]

    def test_quiet_passes_are_counted_in_a_row(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(settings, "LARGE_WINDOW_PAGES", 3)
        passes = ["ab", "x"], ["ac", "x"], ["ab", "x"], ["ac", "x"], ["ab", "x"]
        api = Pages(*(page for one in passes for page in (*one, END)))
        drain(api)
        assert len(api.asked) == 12

    def test_two_quiet_passes_are_not_enough_for_a_shorter_window(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(settings, "LARGE_WINDOW_PAGES", 4)
        api = Pages("ab", "cd", END, "ab", "d", END, "bc", "d", END, "bc", "d", END)
        assert drain(api).settled
        assert len(api.asked) == 12

    @pytest.mark.parametrize("token", [None, ""])
    def test_reading_stops_where_everything_is_older_than_the_window(self, token: str | None) -> None:
        api = Pages("a", ["b@-5"], "a", ["b@-5"])
        assert names(drain(api)) == ["a", "b"]
        assert len(api.asked) == 4

    def test_users_of_one_millisecond_are_in_order(self) -> None:
        api = Pages(["a@5", "b@5", "c@-5"])
        assert names(drain(api)) == ["a", "b", "c"]
        assert len(api.asked) == 1

    def test_somebody_exactly_at_the_windows_begin_is_in_it(self) -> None:
        api = Pages(["a@0"], ["b@-1"], ["a@0"], ["b@-1"])
        assert names(drain(api)) == ["a", "b"]

    def test_a_list_out_of_order_is_read_to_its_end(self) -> None:
        api = Pages(["b@-5"], "a", END, ["b@-5"], "a", END)
        assert names(drain(Pages(["a@5", "c@9", "b@-5"], ["d@3"], END, ["a@5", "c@9", "b@-5"], ["d@3"], END))) == [
            "c", "a", "d", "b",
        ]  # fmt: skip
        assert names(drain(api)) == ["b"]

    def test_a_list_with_somebody_of_unknown_activity_is_read_to_its_end(self) -> None:
        unknown = Page([{"use_id": "x"}, *users(["b@-5"])], "t", None, 1)
        ending = Page(users("c"), None, None, 1)
        assert names(drain(Pages(unknown, ending, unknown, ending))) == ["x", "c", "b"]

    def test_a_page_that_repeats_is_not_the_end_but_several_in_a_row_are(self) -> None:
        once = ["ab", "ab", "cd", END]
        assert names(drain(Pages(*once, *once))) == ["a", "b", "c", "d"]
        stuck = ["ab", *["ab"] * settings.REPEATED_PAGES]
        api = Pages(*stuck, *stuck)
        assert names(drain(api)) == ["a", "b"]
        assert len(api.asked) == 2 * len(stuck)

    def test_repeats_are_counted_in_a_row(self) -> None:
        once = ["a", "a", "a", "b", "b", "b", "c", END]
        assert names(drain(Pages(*once, *once))) == ["a", "b", "c"]

    def test_passes_that_ended_by_repeating_must_be_equal(self) -> None:
        stuck = ["a", *["a"] * settings.REPEATED_PAGES]
        longer = ["a", "b", *["b"] * settings.REPEATED_PAGES]
        api = Pages(*stuck, *longer, *longer)
        assert names(drain(api)) == ["a", "b"]
        assert len(api.asked) == len(stuck) + 2 * len(longer)

    def test_a_total_that_is_reached_ends_no_list(self) -> None:
        """It may count the page, or no further than so far."""
        assert names(drain(Pages("ab", "c", END, "ab", "c", END, total=2))) == ["a", "b", "c"]

    def test_a_list_that_ends_before_its_total_begins_anew_and_then_is_believed(self) -> None:
        assert names(drain(Pages("ab", END, "ab", "c", END, "ab", "c", END, total=3))) == ["a", "b", "c"]
        short = Pages(*["ab", END] * 4, total=3)
        assert names(drain(short)) == ["a", "b"]
        assert short.tokens == [None, "token 1", None, "token 3", None, "token 5", None, "token 7"]

    def test_a_first_page_shorter_than_others_were_is_known_to_be_whole(self) -> None:
        api = Pages("abc", "d", END, "abc", "d", END, "ef", END)
        lister = Lister(api, api.clock)
        lister.drain(WINDOW)
        listing = lister.drain(WINDOW)
        assert listing.atomic
        assert len(api.asked) == 8

    def test_a_first_page_as_long_as_others_may_have_been_cut(self) -> None:
        api = Pages("ab", "c", END, "ab", "c", END, "ef", END, "ef", END)
        lister = Lister(api, api.clock)
        lister.drain(WINDOW)
        lister.drain(WINDOW)
        assert len(api.asked) == 10

    def test_users_without_an_id_are_told_and_left_out(self, monkeypatch: Any) -> None:
        told: list[str] = []
        monkeypatch.setattr("leadboxer_source.listing.logger.warning", told.append)
        assert names(drain(Pages(Page([{"lastEvent": 5}, *users("a"), {"use_id": ""}], None, None, 1)))) == ["a"]
        assert told == ["2 users came without use_id and cannot be loaded."]
        drain(Pages(Page([{}, *users("a")], "t", None, 1), Page([{}], None, None, 1), "a", END))
        assert told[1:] == told[:1]

    def test_a_list_in_which_nobody_has_an_id_is_not_the_one_we_know(self) -> None:
        with pytest.raises(errors.NotLeadBoxer, match="use_id"):
            drain(Pages(Page([{"id": "a"}, {"use_id": None}], None, None, 1)))
        assert names(drain(Pages(Page([], None, None, 1)))) == []

    def test_a_list_that_does_not_end_is_an_error(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(settings, "PAGE_GUARD", 3)
        with pytest.raises(errors.ListingUnstable) as error:
            drain(Pages("a", "b", "c", "d"))
        assert str(error.value) == "LeadBoxer's listing does not end; tell its support, and us."
        assert names(drain(Pages("a", "b", END, "a", "b", END))) == ["a", "b"]


class TestBrokenChains:
    BREAKS: tuple[Callable[[], Exception], ...] = (
        lambda: errors.RequestRefused("dead", 410),
        lambda: errors.ApiUnavailable("no"),
        lambda: errors.NotLeadBoxer("no"),
    )

    @pytest.mark.parametrize("made", BREAKS)
    def test_a_token_that_breaks_begins_the_window_anew_and_is_never_sent_again(
        self, made: Callable[[], Exception]
    ) -> None:
        api = Pages("ab", made(), "ab", "cd", END, "ab", "cd", END)
        assert names(drain(api)) == ["a", "b", "c", "d"]
        assert api.tokens[:3] == [None, "token 1", None]

    @pytest.mark.parametrize("made", BREAKS)
    def test_what_fails_without_a_token_fails_the_listing(self, made: Callable[[], Exception]) -> None:
        broken = made()
        with pytest.raises(type(broken)):
            drain(Pages(broken))

    def test_a_chain_that_breaks_again_and_again_is_given_up(self) -> None:
        script = [step for _ in range(settings.LISTING_RESTARTS + 1) for step in ("ab", errors.ApiUnavailable("no"))]
        api = Pages(*script)
        with pytest.raises(errors.ListingUnstable) as error:
            drain(api)
        assert str(error.value) == (
            f"LeadBoxer's listing of 1970-04-11 broke off {settings.LISTING_RESTARTS + 1} times; "
            "what was loaded is kept, run again later."
        )
        assert len(api.asked) == 2 * (settings.LISTING_RESTARTS + 1)

    def test_an_empty_page_to_an_old_token_may_be_its_death(self) -> None:
        api = Pages("ab", END, "ab", END, takes_s=settings.TOKEN_SECONDS + 1)
        with pytest.raises(IndexError):
            drain(api)
        assert api.tokens == [None, "token 1", None, "token 3", None]

    @pytest.mark.parametrize("takes_s", [0.0, settings.TOKEN_SECONDS])
    def test_an_empty_page_to_a_fresh_token_is_the_end(self, takes_s: float) -> None:
        assert names(drain(Pages("ab", END, "ab", END, takes_s=takes_s))) == ["a", "b"]

    def test_an_empty_first_page_is_an_empty_window_however_long_it_took(self) -> None:
        assert names(drain(Pages(END, takes_s=settings.TOKEN_SECONDS + 1))) == []

    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_a_page_size_that_is_refused_falls_back_to_the_documented_one(self, status: int) -> None:
        api = Pages(errors.RequestRefused("limit", status), *["ab", END] * 4)
        lister = Lister(api, api.clock)
        assert names(lister.drain(WINDOW)) == ["a", "b"]
        days = days_of(WINDOW)
        assert api.asked[:2] == [(days, None, settings.PAGE_LIMIT), (days, None, settings.FALLBACK_PAGE_LIMIT)]
        lister.drain(WINDOW)
        assert {limit for _, _, limit in api.asked[1:]} == {settings.FALLBACK_PAGE_LIMIT}

    @pytest.mark.parametrize("status", [404, 409])
    def test_another_refusal_is_an_error(self, status: int) -> None:
        with pytest.raises(errors.RequestRefused):
            drain(Pages(errors.RequestRefused("no", status)))

    def test_a_refusal_of_the_documented_page_size_is_an_error(self) -> None:
        api = Pages(*[errors.RequestRefused("no", 400)] * 2)
        with pytest.raises(errors.RequestRefused):
            drain(api)
        assert len(api.asked) == 2
