"""Transports for the tests of the conformance suite: ``direct://``, each with one fault in it.

They are of the kind that real transports have had.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from msgflo.errors import ConnectFailed, SendFailed
from msgflo.flow.binding import Binding, Kind
from msgflo.flow.discovery import queue_of_place
from msgflo.transport import direct
from msgflo.transport.contract import (
    MESSAGE_ID,
    Delivery,
    QueueStats,
    Tapped,
)
from msgflo.transport.queues import Queues

__all__ = ["FAULTS", "RAISING", "BuriesNowhere", "ClosesOnce", "DiscardsAll", "Whole"]


class Whole:
    """direct:// as it is, and what befalls it."""

    Client: type[direct.Client] = direct.Client
    Broker: type[direct.Broker] = direct.Broker
    caught_by: ClassVar[tuple[str, ...]] = ()

    def __init__(self, hub: direct.Hub) -> None:
        self.hub = hub

    async def restart(self) -> None:
        self.hub.stop()
        await self.while_away()
        self.hub.start()

    async def while_away(self) -> None:
        await asyncio.sleep(0.01)

    async def cut(self) -> None:
        await self.restart()

    async def drop(self, client: Any) -> None:
        self.hub.drop(client)


FAULTS: list[type[Whole]] = []


def caught_by(*checks: str) -> Callable[[type[Whole]], type[Whole]]:
    """Say which checks must find a fault."""

    def add(fault: type[Whole]) -> type[Whole]:
        fault.caught_by = checks
        FAULTS.append(fault)
        return fault

    return add


# Sending.


@caught_by("many_are_sent_without_waiting", "order_is_kept", "a_slow_participant_slows_nobody")
class LosesSome(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            outport = "nowhere" if body.endswith(b"77") else outport
            super().send(outport, body, headers, confirmed)


@caught_by("send_to_nobody_is_confirmed", "each_send_is_answered_once")
class ConfirmsFromWithin(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            confirmed(None)
            super().send(outport, body, headers, lambda error: None)


@caught_by("unconfirmed_is_counted", "each_send_is_answered_once")
class ConfirmsTwice(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            super().send(outport, body, headers, lambda e: (confirmed(e), confirmed(e)))


@caught_by("send_to_nobody_is_confirmed")
class RefusesWhatGoesNowhere(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            if not self._hub.queues.is_bound(outport):
                self._unconfirmed += 1
                self._refuse(confirmed, SendFailed("no route"))
            else:
                super().send(outport, body, headers, confirmed)


@caught_by("unconfirmed_is_counted", "sending_waits_for_the_connection")
class CountsNothing(Whole):
    class Client(direct.Client):
        unconfirmed = 0


@caught_by("sending_waits_for_the_connection", "a_cut_loses_nothing_that_flows")
class LosesWhatIsSentWhileAway(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            super().send(outport, body, headers, confirmed)
            if self._outbox:
                self._outbox.pop()
                self._hub._confirmations.append((self, confirmed, None))


@caught_by("a_cut_keeps_the_order", "sending_waits_for_the_connection")
class SendsTheLatestFirst(Whole):
    class Client(direct.Client):
        def _resume(self):
            self._outbox.reverse()
            super()._resume()


@caught_by("each_send_is_answered_once")
class IsSilentWhenClosed(Whole):
    class Client(direct.Client):
        def _refuse(self, confirmed, error):
            self._unconfirmed -= 1


@caught_by("too_large_a_message_is_refused")
class CutsOffWhatIsTooLarge(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            super().send(outport, body[: direct.MAX_PAYLOAD // 2], headers, confirmed)


@caught_by("a_known_id_is_not_delivered_again", "pubsub_copies_to_every_instance")
class MakesIdsOfItsOwn(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            headers = {**headers, MESSAGE_ID: self._hub._new_id()}
            super().send(outport, body, headers, confirmed)


@caught_by("ids_are_known_by_source")
class KnowsIdsOfOtherSources(Whole):
    class Client(direct.Client):
        seen: ClassVar[dict[str, str]] = {}

        def send(self, outport, body, headers, confirmed):
            first = self.seen.setdefault(headers[MESSAGE_ID], outport)
            super().send(outport if outport == first else "nowhere", body, headers, confirmed)


@caught_by("payloads_are_kept")
class TakesEmptyForNothing(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            super().send(outport, body or b"null", headers, confirmed)


@caught_by("headers_are_kept")
class FoldsHeaders(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            headers = {k if k == MESSAGE_ID else k.title(): v.strip() for k, v in headers.items()}
            super().send(outport, body, headers, confirmed)


@caught_by("unconfirmed_is_counted", "a_dead_letter_is_requeued")
class NeverWaits(Whole):
    class Client(direct.Client):
        async def flush(self, timeout=10.0):
            pass

        def bury(self, delivery, death):
            super().bury(delivery, replace(death, queue=delivery.inlet.queue))


@caught_by("names_are_free", "headers_are_kept")
class FoldsNames(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            headers = {k: v.encode("ascii", "replace").decode() for k, v in headers.items()}
            super().send(outport.replace("/", "."), body, headers, confirmed)


# Taking.


@caught_by(
    "prefetch_is_never_exceeded",
    "a_busy_participant_gets_nothing_more",
    "place_and_work_queue_share_the_room",
    "what_is_open_counts_after_a_pause",
    "a_slow_participant_slows_nobody",
    "one_client_serves_two_participants",
)
class TakesOneMore(Whole):
    class Client(direct.Client):
        def _consume(self, inlet, prefetch, deliver):
            super()._consume(inlet, prefetch + 1, deliver)


@caught_by(
    "unended_comes_again_after_close",
    "unended_comes_again_after_death",
    "never_ended_counts",
    "dying_counts",
    "a_restart_gives_back_what_is_open",
    "a_cut_gives_back_what_is_open",
    "a_retry_comes_again",
    "a_dead_letter_is_complete",
)
class SettlesOnArrival(Whole):
    class Client(direct.Client):
        def _consume(self, inlet, prefetch, deliver):
            def early(delivery: Delivery) -> None:
                self._hub.queues.settle(delivery)
                deliver(delivery)

            super()._consume(inlet, prefetch, early)


@caught_by("a_chain_loses_nothing", "a_chain_of_the_dying_loses_nothing")
class SettlesBeforeItIsConfirmed(Whole):
    """Takes a message for processed, and loses what it sent for it when it goes."""

    class Client(direct.Client):
        def __init__(self, url):
            super().__init__(url)
            self.late = []

        def _consume(self, inlet, prefetch, deliver):
            def early(delivery: Delivery) -> None:
                self._hub.queues.settle(delivery)
                deliver(delivery)

            super()._consume(inlet, prefetch, early)

        def send(self, outport, body, headers, confirmed):
            if self._wanted:
                self.late.append((outport, body, headers, confirmed))
                asyncio.get_running_loop().call_later(0.01, self.send_late)
            else:
                super().send(outport, body, headers, confirmed)

        def send_late(self):
            if not self._closed:
                super().send(*self.late.pop(0))


@caught_by("settled_is_gone", "prefetch_is_never_exceeded", "queues_are_counted")
class SettlesNothing(Whole):
    class Client(direct.Client):
        def settle(self, delivery):
            pass


@caught_by("settled_is_gone", "roundrobin_gives_each_message_to_one")
class SettlesByGivingBack(Whole):
    class Client(direct.Client):
        def settle(self, delivery):
            self.retry(delivery, counts=False)


@caught_by(
    "a_retry_comes_again", "a_hand_back_is_not_counted", "messages_without_headers_are_taken"
)
class ForgetsRetries(Whole):
    class Client(direct.Client):
        def retry(self, delivery, delay=0.0, *, counts=True):
            self.settle(delivery)


@caught_by("a_delayed_retry_waits", "a_delayed_retry_outlives_its_participant")
class RetriesAtOnce(Whole):
    class Client(direct.Client):
        def retry(self, delivery, delay=0.0, *, counts=True):
            super().retry(delivery, 0.0, counts=counts)


@caught_by("a_delayed_retry_outlives_its_participant")
class WaitsItself(Whole):
    class Client(direct.Client):
        def retry(self, delivery, delay=0.0, *, counts=True):
            def later():
                if not self._closed:
                    self._hub.queues.enqueue(
                        delivery.queue, delivery.body, delivery.headers, self._hub._new_id(), 0.0
                    )

            self.settle(delivery)
            asyncio.get_running_loop().call_later(delay, later)


@caught_by("a_hand_back_is_not_counted", "a_hand_back_is_remembered", "queues_are_counted")
class CountsHandBacks(Whole):
    class Client(direct.Client):
        def retry(self, delivery, delay=0.0, *, counts=True):
            super().retry(delivery, 0.0 if not counts else delay, counts=True)


@caught_by(
    "never_ended_counts", "dying_counts", "a_retry_comes_again", "a_retry_goes_to_any_participant"
)
class CountsNoAttempts(Whole):
    class Client(direct.Client):
        def _consume(self, inlet, prefetch, deliver):
            def first(delivery: Delivery) -> None:
                delivery.attempt = 1
                deliver(delivery)

            super()._consume(inlet, prefetch, first)


@caught_by("pausing_stops_deliveries", "a_retry_goes_to_any_participant")
class DoesNotPause(Whole):
    class Client(direct.Client):
        async def pause(self, inlet):
            pass


@caught_by("a_delivery_is_ended_once")
class EndsTwice(Whole):
    class Client(direct.Client):
        def retry(self, delivery, delay=0.0, *, counts=True):
            self._hub.queues._give_back(delivery.copy)
            self._hub.queues._pump(delivery.copy.queue)


@caught_by("order_is_kept", "order_is_kept_over_fan_in", "a_place_is_found_again")
class TakesTheLatestFirst(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            self._hub.queues.__class__ = LatestFirst


class LatestFirst(Queues):
    def _put(self, queue, copy):
        queue.arrived += 1
        queue.waiting.appendleft(copy)
        asyncio.get_running_loop().call_later(0.02, self._pump, queue)


@caught_by("a_delivery_says_when_it_was_sent")
class HasAnotherClock(Whole):
    class Client(direct.Client):
        def _consume(self, inlet, prefetch, deliver):
            def at(delivery: Delivery) -> None:
                delivery.sent = 12.5
                deliver(delivery)

            super()._consume(inlet, prefetch, at)


@caught_by("messages_without_headers_are_taken")
class MakesUpIdsAnew(Whole):
    class Client(direct.Client):
        def _consume(self, inlet, prefetch, deliver):
            def named(delivery: Delivery) -> None:
                if MESSAGE_ID not in delivery.headers:
                    delivery.id = self._hub._new_id()
                deliver(delivery)

            super()._consume(inlet, prefetch, named)


@caught_by("a_place_lasts_for_its_retention")
class KeepsPlaces(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            self._hub.queues.__class__ = NeverGivesUp


class NeverGivesUp(Queues):
    def _give_up(self, place):
        pass


@caught_by("a_place_lasts_for_its_retention")
class KeepsTheFirstPlaceNoLonger(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            self._hub.queues.__class__ = AllPlacesAlike


class AllPlacesAlike(Queues):
    def _review(self, place, now):
        instance, place.instance = place.instance, 2
        super()._review(place, now)
        place.instance = instance


@caught_by("the_first_place_waits_for_its_participant")
class MakesNoFirstPlace(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            if binding.kind is Kind.PUBSUB:
                inport = self._hub.queues._inports[binding.target]
                if 1 in inport.places and not inport.places[1].holders:
                    self._hub.queues._give_up(inport.places[1])


@caught_by("one_client_serves_two_participants")
class ServesOne(Whole):
    class Client(direct.Client):
        async def consume(self, inlet, prefetch, deliver):
            for other in [other for other in self._wanted if other != (inlet.queue, 1)]:
                await self.pause(self._inlets[other])
            await super().consume(inlet, prefetch, deliver)


# Connections.


@caught_by(
    "pubsub_copies_to_every_instance",
    "a_new_instance_gets_what_comes_after",
    "a_place_is_found_again",
    "a_slow_participant_slows_nobody",
    "a_connection_changes_its_kind",
    "bindings_are_listed",
)
class SharesCopies(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            kind = Kind.ROUNDROBIN if binding.kind is Kind.PUBSUB else binding.kind
            await super().bind(Binding(kind, binding.source, binding.target))


@caught_by(
    "roundrobin_gives_each_message_to_one",
    "a_work_queue_waits_for_participants",
    "an_idle_participant_gets_the_next",
)
class CopiesShares(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            kind = Kind.PUBSUB if binding.kind is Kind.ROUNDROBIN else binding.kind
            await super().bind(Binding(kind, binding.source, binding.target))


@caught_by(
    "connections_are_independent",
    "binding_twice_is_binding_once",
    "a_source_knows_whether_it_is_bound",
    "unbinding_takes_nothing_from_the_busy",
    "unbinding_leaves_what_comes_another_way",
    "rewiring_under_traffic_loses_nothing",
)
class NeverUnbinds(Whole):
    class Broker(direct.Broker):
        async def unbind(self, binding):
            pass


@caught_by(
    "unbinding_takes_nothing_from_the_busy",
    "unbinding_takes_nothing_from_the_absent",
    "a_connection_changes_its_kind",
)
class UnbindsWhatWaits(Whole):
    class Broker(direct.Broker):
        async def unbind(self, binding):
            await super().unbind(binding)
            inport = self._hub.queues._inports[binding.target]
            for queue in (inport.work, *inport.places.values()):
                queue.waiting.clear()


@caught_by("connections_are_independent", "unbinding_leaves_what_comes_another_way")
class UnbindsEverything(Whole):
    class Broker(direct.Broker):
        async def unbind(self, binding):
            for other in await self.bindings():
                if other.source == binding.source:
                    await super().unbind(other)


@caught_by("rewiring_under_traffic_loses_nothing")
class RewiresLate(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            made = super().bind

            async def later():
                await asyncio.sleep(0.005)
                await made(binding)

            self.task = asyncio.create_task(later())
            if not binding.target.endswith("NEW"):
                await self.task


@caught_by("binding_twice_is_binding_once")
class BindsTwice(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            known = binding in await self.bindings()
            await super().bind(binding)
            if known:
                source = self._hub.queues._sources[binding.source]
                source.routes = self._hub.queues._routes(source) * 2


@caught_by("bindings_are_listed", "bindings_outlive_who_made_them")
class ListsItsOwn(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            self.__dict__.setdefault("mine", set()).add(binding)

        async def bindings(self):
            mine = self.__dict__.get("mine", set())
            return [binding for binding in await super().bindings() if binding in mine]


@caught_by("bindings_outlive_who_made_them")
class ForwardsItself(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            self.__dict__.setdefault("mine", set()).add(binding)

        async def close(self):
            for binding in self.__dict__.pop("mine", set()):
                await self.unbind(binding)
            await super().close()


@caught_by("a_source_may_have_the_name_of_its_target")
class GoesRound(Whole):
    class Client(direct.Client):
        def send(self, outport, body, headers, confirmed):
            super().send(outport, body, headers, confirmed)
            if outport in self._hub.queues._inports:
                self._hub.queues.enqueue(outport, body, headers, headers[MESSAGE_ID], 0.0)


@caught_by("a_source_knows_whether_it_is_bound")
class SaysBound(Whole):
    class Client(direct.Client):
        async def is_bound(self, outport):
            return True


@caught_by("messages_can_be_enqueued", "an_inport_is_tapped", "a_retry_comes_again")
class KnowsNoPlaces(Whole):
    class Broker(direct.Broker):
        async def enqueue(self, queue, body, headers):
            await super().enqueue(queue_of_place(queue)[0], body, headers)


# Looking.


@caught_by("a_source_is_tapped", "an_inport_is_tapped", "a_cut_keeps_listeners")
class SeesNothing(Whole):
    class Broker(direct.Broker):
        async def tap(self, source, seen):
            return await super().tap(source, lambda tapped: None)


@caught_by("a_source_is_tapped")
class TapsForEver(Whole):
    class Broker(direct.Broker):
        async def tap(self, source, seen):
            class Open:
                async def close(self):
                    pass

            await super().tap(source, seen)
            return Open()


@caught_by("a_source_is_tapped")
class TapsWhatIsBound(Whole):
    class Broker(direct.Broker):
        async def tap(self, source, seen):
            def when_bound(tapped: Tapped) -> None:
                if self._hub.queues.is_bound(source):
                    seen(tapped)

            return await super().tap(source, when_bound)


@caught_by("queues_are_counted", "rates_are_measured")
class CountsOnlyWhatWaits(Whole):
    class Broker(direct.Broker):
        async def queues(self, names=None):
            return [QueueStats(s.queue, s.waiting) for s in await super().queues(names)]


@caught_by("queues_are_counted")
class DoesNotSort(Whole):
    class Broker(direct.Broker):
        async def queues(self, names=None):
            return (await super().queues(names))[::-1]


# Dead letters.


@caught_by(
    "a_dead_letter_is_complete",
    "a_dead_letter_is_requeued",
    "a_dead_letter_is_edited",
    "a_dead_letter_is_discarded",
    "dead_letters_are_read_page_by_page",
    "dead_letters_are_routed",
    "routing_is_for_what_dies_while_it_is_bound",
    "dying_counts",
    "a_restart_loses_nothing_that_waits",
)
class BuriesNowhere(Whole):
    class Client(direct.Client):
        def bury(self, delivery, death):
            self.settle(delivery)


@caught_by("a_dead_letter_is_complete", "dead_letters_are_routed")
class SaysLittleOfTheDead(Whole):
    class Client(direct.Client):
        def bury(self, delivery, death):
            super().bury(delivery, replace(death, role="", traceback=""))


@caught_by("dead_letters_are_read_page_by_page")
class ListsTheLatestFirst(Whole):
    class Broker(direct.Broker):
        async def dead_letters(self, queue, limit=100, after=""):
            return (await super().dead_letters(queue, limit, after))[::-1]


@caught_by("dead_letters_are_read_page_by_page")
class ListsWithoutLimit(Whole):
    class Broker(direct.Broker):
        async def dead_letters(self, queue, limit=100, after=""):
            return await super().dead_letters(queue, 1000, after)


@caught_by("a_dead_letter_is_requeued")
class KeepsWhatIsRequeued(Whole):
    class Broker(direct.Broker):
        async def requeue(self, queue, keys, body=None):
            for letter in await self.dead_letters(queue):
                await self.enqueue(letter.death.queue, letter.body, {})
            return 1


@caught_by("a_dead_letter_is_edited")
class RequeuesTheOriginal(Whole):
    class Broker(direct.Broker):
        async def requeue(self, queue, keys, body=None):
            return await super().requeue(queue, keys)


@caught_by("a_dead_letter_is_discarded", "dead_letters_are_read_page_by_page")
class DiscardsAll(Whole):
    class Broker(direct.Broker):
        async def discard(self, queue, keys):
            letters = await self.dead_letters(queue)
            return await super().discard(queue, [letter.key for letter in letters])


@caught_by("routing_is_for_what_dies_while_it_is_bound")
class RoutesWhatDiedBefore(Whole):
    class Broker(direct.Broker):
        async def bind(self, binding):
            await super().bind(binding)
            if binding.kind is Kind.DEADLETTER:
                for letter in await self.dead_letters(binding.source):
                    await self.enqueue(binding.target, letter.body, {})
                    await self.discard(binding.source, [letter.key])


@caught_by("dead_letters_are_routed")
class RoutesForEver(Whole):
    class Broker(direct.Broker):
        async def unbind(self, binding):
            if binding.kind is not Kind.DEADLETTER:
                await super().unbind(binding)


# Being there.


@caught_by(
    "instances_are_claimed", "a_restart_keeps_instance_numbers", "a_cut_keeps_instance_numbers"
)
class ClaimsTheFirst(Whole):
    class Client(direct.Client):
        async def claim(self, role, instance=None):
            return instance or 1


@caught_by("instances_of_the_dead_are_free", "instances_are_claimed")
class FreesNoInstance(Whole):
    class Client(direct.Client):
        claimed: ClassVar[dict[str, int]] = {}

        async def claim(self, role, instance=None):
            self.claimed[role] = self.claimed.get(role, 0) + 1
            return instance or self.claimed[role]


@caught_by("announcements_reach_all", "a_restart_keeps_listeners", "a_cut_keeps_listeners")
class AnnouncesNothing(Whole):
    class Client(direct.Client):
        async def announce(self, message):
            pass


@caught_by("announcements_reach_all")
class AnnouncesToOne(Whole):
    class Broker(direct.Broker):
        async def listen(self, heard):
            for link in self._hub._links:
                if isinstance(link, direct.Broker):
                    link._heard.clear()
            await super().listen(heard)


@caught_by("who_listens_asks", "all_clients_hear_what_is_told", "a_restart_keeps_listeners")
class TellsNobody(Whole):
    class Client(direct.Client):
        def on_told(self, call):
            pass


@caught_by("all_clients_hear_what_is_told")
class TellsText(Whole):
    class Broker(direct.Broker):
        async def tell(self, message):
            await super().tell(message.decode(errors="replace").encode())


@caught_by("closing_twice_is_closing_once")
class ClosesOnce(Whole):
    class Client(direct.Client):
        async def close(self):
            if self._closed:
                raise RuntimeError("closed already")
            await super().close()


@caught_by("who_cannot_connect_says_why")
class RaisesWhatItGets(Whole):
    class Client(direct.Client):
        async def connect(self, timeout=10.0):
            try:
                await super().connect(timeout)
            except ConnectFailed:
                raise OSError("connection refused") from None


@caught_by("who_cannot_connect_says_why")
class ShowsThePassword(Whole):
    class Client(direct.Client):
        async def connect(self, timeout=10.0):
            try:
                await super().connect(timeout)
            except ConnectFailed as failed:
                raise ConnectFailed(self.url, str(failed)) from None


@caught_by("who_cannot_connect_says_why")
class TriesForEver(Whole):
    class Broker(direct.Broker):
        async def connect(self, timeout=10.0):
            await super().connect(1000.0)


# Interruptions.


@caught_by("a_restart_loses_nothing_that_waits", "a_restart_loses_nothing_that_flows")
class StoresNothing(Whole):
    async def while_away(self):
        await super().while_away()
        self.hub.queues = Queues()


@caught_by("a_restart_gives_back_what_is_open", "a_cut_gives_back_what_is_open")
class LosesWhatIsOpen(Whole):
    async def restart(self):
        for consumers in self.hub.queues._consumers.values():
            for consumer in consumers.values():
                for handed in list(consumer.out):
                    self.hub.queues.settle(handed)
        await super().restart()


@caught_by(
    "a_restart_loses_nothing_that_flows",
    "a_cut_loses_nothing_that_flows",
    "a_cut_keeps_the_order",
    "a_cut_gives_back_what_is_open",
)
class DoesNotConsumeAgain(Whole):
    class Client(direct.Client):
        def _resume(self):
            if self._was_cut:
                self._wanted.clear()
            super()._resume()


@caught_by("a_restart_keeps_listeners", "a_cut_keeps_listeners")
class ListensNoMore(Whole):
    async def while_away(self):
        await super().while_away()
        for link in self.hub._links:
            if isinstance(link, direct.Broker):
                link._heard.clear()


@caught_by("a_restart_keeps_instance_numbers", "a_cut_keeps_instance_numbers")
class ForgetsWhoIsWho(Whole):
    async def while_away(self):
        await super().while_away()
        self.hub._claims.clear()


@caught_by("a_cut_loses_nothing_that_flows", "a_restart_loses_nothing_that_flows")
class SaysNothingOfIt(Whole):
    class Client(direct.Client):
        def on_restored(self, call):
            pass


@caught_by("unended_comes_again_after_death", "dying_counts")
class LosesWhatTheDeadHad(Whole):
    async def drop(self, client):
        for consumer in self.hub.queues._consumers.get(client, {}).values():
            for handed in list(consumer.out):
                self.hub.queues.settle(handed)
        self.hub.drop(client)


RAISING = (ClosesOnce, RaisesWhatItGets)
"""Those whose fault is to raise what is no error of msgflo."""
