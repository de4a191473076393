"""What a participant reads from its surroundings."""

import pytest

from msgflo.environment import (
    assigned_instance,
    broker_of,
    packets_of,
    parse_packets,
    seconds_of,
    starts_paused,
)
from msgflo.errors import ConfigurationError

IN_KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("environment", "instance"),
    [
        ({}, None),
        ({"MSGFLO_INSTANCE": "3"}, 3),
        ({"MSGFLO_INSTANCE": ""}, None),
        ({"DYNO": "worker.3"}, 3),
        ({"DYNO": "image-worker.12"}, 12),
        ({"DYNO": "run.1234"}, None),
        ({"DYNO": "scheduler.1234"}, None),
        ({"DYNO": "release.1234"}, None),
        ({"DYNO": "worker.0"}, None),
        ({"DYNO": "worker"}, None),
        ({**IN_KUBERNETES, "HOSTNAME": "worker-0"}, 1),
        ({**IN_KUBERNETES, "HOSTNAME": "image-worker-11"}, 12),
        ({**IN_KUBERNETES, "HOSTNAME": "worker-7d4b9c6f5-12345"}, None),
        ({**IN_KUBERNETES, "HOSTNAME": "worker-01"}, None),
        ({"HOSTNAME": "laptop-2"}, None),
        ({"MSGFLO_INSTANCE": "2", "DYNO": "worker.3"}, 2),
        ({"DYNO": "worker.3", **IN_KUBERNETES, "HOSTNAME": "worker-0"}, 3),
    ],
)
def test_the_instance_that_the_surroundings_assign(environment, instance):
    assert assigned_instance(environment) == instance


@pytest.mark.parametrize("said", ["0", "-1", "one", "1.5", "²", " 1"])
def test_a_wrong_instance_is_an_error_and_not_another_instance(said):
    with pytest.raises(ConfigurationError, match=r"MSGFLO_INSTANCE is .*; expected a number from"):
        assigned_instance({"MSGFLO_INSTANCE": said, "DYNO": "worker.3"})


def test_what_is_given_goes_before_the_environment_and_that_before_the_default():
    environment = {"MSGFLO_GRACE": "3"}
    assert seconds_of("MSGFLO_GRACE", 2, 10, environment, least=0) == 2
    assert seconds_of("MSGFLO_GRACE", 0, 10, environment, least=0) == 0
    assert seconds_of("MSGFLO_GRACE", None, 10, environment, least=0) == 3
    assert seconds_of("MSGFLO_GRACE", None, 10, {"MSGFLO_GRACE": ""}, least=0) == 10


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf"])
def test_seconds_that_are_none(said):
    with pytest.raises(ConfigurationError, match=r"MSGFLO_GRACE is .*; expected seconds, at least"):
        seconds_of("MSGFLO_GRACE", None, 10, {"MSGFLO_GRACE": said}, least=0)


def test_initial_packets_of_the_environment_are_joined_by_those_that_are_given():
    environment = {"MSGFLO_IIPS": '{"size": 800, "format": "png"}'}
    assert packets_of({"size": 0}, environment) == {"size": 0, "format": "png"}
    assert packets_of(None, {}) == {}


@pytest.mark.parametrize("said", ["{", "[1]", "800", "null"])
def test_initial_packets_must_be_a_json_object(said):
    with pytest.raises(ConfigurationError, match="--iips is "):
        parse_packets(said, "--iips")


def test_a_broker_must_be_named_by_somebody():
    assert broker_of(None, {"MSGFLO_BROKER": "nats://a"}) == "nats://a"
    assert broker_of("nats://b", {"MSGFLO_BROKER": "nats://a"}) == "nats://b"
    assert broker_of(None, {"MSGFLO_BROKER": "", "CLOUDAMQP_URL": "amqp://c"}) == "amqp://c"
    assert broker_of(None, {"MSGFLO_BROKER": "nats://a", "CLOUDAMQP_URL": "amqp://c"}) == "nats://a"
    with pytest.raises(ConfigurationError, match="no broker is named; expected --broker or MSGFLO"):
        broker_of(None, {"MSGFLO_BROKER": ""})


def test_a_participant_may_be_told_to_start_paused():
    assert starts_paused({"MSGFLO_PAUSED": "1"})
    assert not starts_paused({"MSGFLO_PAUSED": ""})
    assert not starts_paused({})
