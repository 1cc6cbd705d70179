"""Boltz's Python SDK against the emulator: one line per check, as `run` counts them."""

import asyncio
import os
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import boltz_api
import httpx

BASE_URL = os.environ["BOLTZ_BASE_URL"]

# The client takes address and key from the environment, as a user's would. Strict: an answer that does not have the
# shape that the SDK expects is an error.
client = boltz_api.Boltz(_strict_response_validation=True)
keys = client.admin.api_keys


def control(method, path, **arguments):
    httpx.request(method, f"{BASE_URL}/_emulator/{path}", **arguments).raise_for_status()


def state():
    return httpx.get(f"{BASE_URL}/_emulator/state").json()


def with_key(key):
    return boltz_api.Boltz(api_key=key, _strict_response_validation=True)


def refused(error, call):
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError(f"no {error.__name__}")


def an_admin_key_says_who_it_is():
    me = client.auth.me()
    assert (me.principal_type, me.key_type, me.mode, me.workspace_id) == ("api_key", "admin", "live", None), me


def a_key_is_created_with_defaults():
    created = keys.create(name="plain")
    details = created.key_details
    assert created.key.startswith("sk_bc_ws_live_") and details.key_prefix == created.key[:12], created
    assert (details.name, details.allowed_ips, details.expires_at) == ("plain", [], None), details
    assert (details.is_active, details.livemode, details.last_used_at) == (True, True, None), details


def a_key_is_created_with_everything():
    created = keys.create(
        name="full", allowed_ips=["192.0.2.1", "2001:db8::1"], expires_in_days=3, mode="test", workspace_id="ws_1"
    )
    details = created.key_details
    assert created.key.startswith("sk_bc_ws_test_") and not details.livemode, created
    assert details.expires_at - details.created_at == timedelta(days=3), details
    assert (details.workspace_id, details.allowed_ips) == ("ws_1", ["192.0.2.1", "2001:db8::1"]), details


def a_workspace_key_says_who_it_is():
    created = keys.create(name="worker", workspace_id="ws_2")
    me = with_key(created.key).auth.me()
    assert (me.key_type, me.workspace_id, me.api_key_id) == ("workspace", "ws_2", created.key_details.id), me
    assert keys.list(limit=1).data[0].last_used_at is not None


def seven_keys():
    control("POST", "reset")
    return [keys.create(name=str(number), workspace_id=f"ws_{number % 2}").key_details.id for number in range(7)]


def the_list_pages_forwards():
    seven_keys()
    page = keys.list(limit=3)
    assert len(page.data) == 3 and page.has_more, page
    assert [key.name for key in page] == ["6", "5", "4", "3", "2", "1", "0"]


def the_list_pages_backwards():
    oldest = seven_keys()[0]
    page = keys.list(limit=3, before_id=oldest)
    names = [[key.name for key in page.data] for page in page.iter_pages()]
    assert names == [["3", "2", "1"], ["6", "5", "4"]], names


def the_list_pages_asynchronously():
    seven_keys()

    async def names():
        async with boltz_api.AsyncBoltz(_strict_response_validation=True) as asynchronous:
            return [key.name async for key in asynchronous.admin.api_keys.list(limit=2)]

    assert asyncio.run(names()) == ["6", "5", "4", "3", "2", "1", "0"]


def the_list_is_filtered_by_workspace():
    seven_keys()
    assert [key.name for key in keys.list(limit=2, workspace_id="ws_1")] == ["5", "3", "1"]


def admin_keys_in_the_list_have_the_right_shape():
    seven_keys()
    control("PUT", "settings", json={"list_admin_keys": True})
    try:
        last = list(keys.list(limit=3))[-1]
    finally:
        control("PUT", "settings", json={"list_admin_keys": False})
    assert (last.key_type, last.workspace_id) == ("admin", None), last


def a_revoked_key_does_not_authenticate():
    created = keys.create(name="short-lived")
    revoked = keys.revoke(created.key_details.id)
    assert (revoked.id, revoked.is_active) == (created.key_details.id, False), revoked
    refused(boltz_api.AuthenticationError, with_key(created.key).auth.me)


def refusals_become_the_right_errors():
    created = keys.create(name="worker")
    refused(boltz_api.AuthenticationError, lambda: with_key("sk_bc_unknown").admin.api_keys.list())
    refused(boltz_api.PermissionDeniedError, lambda: with_key(created.key).admin.api_keys.list())
    refused(boltz_api.NotFoundError, lambda: keys.revoke("key_unknown"))
    refused(boltz_api.BadRequestError, lambda: keys.create(name=5))
    refusal = refused(boltz_api.UnprocessableEntityError, lambda: keys.create(name="", expires_in_days=1))
    assert refusal.body["code"] == "VALIDATION_ERROR" and "name" in refusal.body["message"], refusal.body


def a_retry_after_an_error_succeeds():
    for outcome in (
        {"status": {"status": 503, "headers": {"retry-after-ms": "10"}}},
        {"status": {"status": 429, "headers": {"retry-after-ms": "10"}}},
        "cut",
    ):
        control("POST", "reset")
        control("POST", "faults", json={"operation": "create", "outcome": outcome})
        keys.create(name="retried")
        assert len(state()["keys"]) == 1 and sum(state()["requests"]["create"].values()) == 2, state()


def a_lost_answer_makes_the_retry_create_a_second_key():
    control("POST", "reset")
    control("POST", "faults", json={"operation": "create", "effect": "before", "outcome": "cut"})
    keys.create(name="twice")
    assert [key["name"] for key in state()["keys"]] == ["twice", "twice"], state()


def mount(folder, version, key):
    """Writes the file as the kubelet does: into a new folder, to which it then points a link."""
    (folder / version).mkdir()
    (folder / version / "BOLTZ_API_KEY").write_text(key)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")


def a_client_that_reads_a_file_takes_the_new_key():
    old = keys.create(name="old")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "BOLTZ_API_KEY").symlink_to("..data/BOLTZ_API_KEY")
        mount(folder, "..1", old.key)
        os.environ["BOLTZ_API_KEY_FILE"] = str(folder / "BOLTZ_API_KEY")
        # The code in docs/how-to/sdks.md, which `run` puts into a module.
        from key_file import client as reader

        assert reader.auth.me().api_key_id == old.key_details.id
        new = keys.create(name="new")
        mount(folder, "..2", new.key + "\n")
        keys.revoke(old.key_details.id)
        assert reader.auth.me().api_key_id == new.key_details.id
    refused(boltz_api.AuthenticationError, with_key(old.key).auth.me)


CHECKS = [
    an_admin_key_says_who_it_is,
    a_key_is_created_with_defaults,
    a_key_is_created_with_everything,
    a_workspace_key_says_who_it_is,
    the_list_pages_forwards,
    the_list_pages_backwards,
    the_list_pages_asynchronously,
    the_list_is_filtered_by_workspace,
    admin_keys_in_the_list_have_the_right_shape,
    a_revoked_key_does_not_authenticate,
    refusals_become_the_right_errors,
    a_retry_after_an_error_succeeds,
    a_lost_answer_makes_the_retry_create_a_second_key,
    a_client_that_reads_a_file_takes_the_new_key,
]

for check in CHECKS:
    control("POST", "reset")
    try:
        check()
        print(f"passed python {check.__name__}")
    except Exception:  # A check that breaks is a check that failed; the others still count.
        traceback.print_exc()
        print(f"failed python {check.__name__}")
