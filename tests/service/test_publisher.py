"""Publisher: subscribers are told all, and none of their threads is left when it has ended."""

from __future__ import annotations

from parallel.service.publisher import Publisher
from tests.conftest import ours
from tests.support.waiting import eventually


def test_who_subscribes_just_when_it_has_ended_is_told_that_it_is_over() -> None:
    publisher, over = Publisher(), list[str]()
    publisher.start()
    publisher.stop(5.0)
    subscription = publisher.subscribe(print, when_over=lambda: over.append("over"))
    eventually(lambda: over == ["over"], 20, "the end of the subscription")
    assert subscription.closed
    eventually(lambda: not ours(), 20, "the end of its thread")


def test_subscribers_of_one_that_could_not_be_started_end_too() -> None:
    publisher = Publisher()
    publisher.subscribe(print)
    publisher.stop(5.0)
    eventually(lambda: not ours(), 20, "the end of the subscriber's thread")
